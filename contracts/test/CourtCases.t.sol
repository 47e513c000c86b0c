// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../src/interfaces/IDisputeCourt.sol";
import {IRoundProofErrors} from "../src/interfaces/IRoundProofErrors.sol";
import {CourtTest} from "./utils/CourtTest.sol";
import {vm} from "./utils/Vm.sol";

/// @notice See CourtCases.tree. How a case gets from its opening to its execution.
contract CourtCasesTest is CourtTest {
    function expectRefused(bytes4 reason) internal {
        vm.expectPartialRevert(reason);
    }

    function create(bytes calldata arguments) external returns (address) {
        return vm.deployCode("DisputeCourt.sol:DisputeCourt", arguments);
    }

    function test_Terms_AreBounded() external {
        IDisputeCourt.CourtTerms[6] memory bad;
        for (uint256 i = 0; i < 6; ++i) {
            bad[i] = courtTerms();
        }
        uint64 rest = DISPUTE - ANSWER - 2 * COMMIT - REVEAL - APPEAL;
        bad[0].rulingTime = rest + 1;
        bad[1].committeeSize = 4;
        bad[2].bond = 0;
        bad[3].tolerance = 10_000;
        bad[4].revealTime = 0;
        bad[5].committeeSize = 17;
        for (uint256 i = 0; i < 6; ++i) {
            try this.create(abi.encode(market, theRegistry, arbiter, bad[i])) {
                revert("accepted");
            } catch (bytes memory) {}
        }
        IDisputeCourt.CourtTerms memory longest = courtTerms();
        longest.rulingTime = rest;
        deployCourt(longest);
    }

    function test_Domain() external view {
        (, string memory name, string memory version,, address verifier,,) = theCourt.eip712Domain();
        vm.assertEq(name, "HyperGPU Court");
        vm.assertEq(version, "1");
        vm.assertEq(verifier, address(theCourt));
    }

    /*//////////////////////////////////////////////////////////////
                                OPENING
    //////////////////////////////////////////////////////////////*/

    function test_Challenge_SaysWhatIsDisputed() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 1);
        uint256 before = token.balanceOf(challenger);
        uint256 caseId = challengeQuality(challenger, proof);
        vm.assertEq(before - token.balanceOf(challenger), BOND);
        IDisputeCourt.Case memory dispute = theCourt.getCase(caseId);
        vm.assertTrue(dispute.kind == IDisputeCourt.Kind.Quality);
        expectStage(caseId, IDisputeCourt.Stage.Drawing);
        vm.assertEq(dispute.jobId, jobId);
        vm.assertEq(dispute.nodeId, 2);
        vm.assertEq(dispute.units, UNITS);
        vm.assertEq(dispute.paid, 9_000);
        vm.assertEq(dispute.finding, 9_000);
        vm.assertEq(dispute.epoch, 2);
        vm.assertEq(dispute.attestors, 3);
        vm.assertEq(dispute.challenger, challenger);
        vm.assertEq(dispute.operator, operator);
        vm.assertEq(dispute.requester, requester);
        vm.assertEq(dispute.bond, BOND);
        vm.assertEq(dispute.artifact, artifactOf(2));
        vm.assertEq(dispute.evidence, EVIDENCE);
        vm.assertEq(dispute.drawBlock, vm.getBlockNumber() + 2);
        vm.assertEq(theCourt.caseOf(jobId, 0, 2, IDisputeCourt.Kind.Quality), caseId);
        vm.assertEq(theCourt.caseOf(jobId, 0, 2, IDisputeCourt.Kind.Availability), 0);
        vm.assertEq(dispute.held, FULL * 9 / 10);
        vm.assertEq(theCourt.bonds(), BOND);
        checkBooks();
    }

    function test_Challenge_OnlyWithinTheWindow() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        vm.startPrank(challenger);
        expectRefused(IDisputeCourt.WindowOver.selector);
        theCourt.challengeQuality(jobId, 1, proof);
        later(WINDOW);
        expectRefused(IDisputeCourt.WindowOver.selector);
        theCourt.challengeQuality(jobId, 0, proof);
        vm.warp(time() - 1);
        theCourt.challengeQuality(jobId, 0, proof);
    }

    function test_Challenge_NotOfAnAcceptedRound() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        vm.prank(requester);
        market.acceptRound(jobId, 0, "");
        vm.startPrank(challenger);
        expectRefused(IDisputeCourt.RoundIsAccepted.selector);
        theCourt.challengeQuality(jobId, 0, proof);
        expectRefused(IDisputeCourt.RoundIsAccepted.selector);
        theCourt.challengeAvailability(jobId, 0, proof);
    }

    function test_Challenge_NeedsTheWholeProof() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        vm.startPrank(challenger);
        proof.batches[0].attestors = 7;
        expectRefused(IRoundProofErrors.RoundNotShown.selector);
        theCourt.challengeQuality(jobId, 0, proof);
        proof.batches[0].attestors = 3;
        proof.qualities = sameScores(proof.receipts, 8_000);
        expectRefused(IRoundProofErrors.BatchNotShown.selector);
        theCourt.challengeQuality(jobId, 0, proof);
        proof.qualities = sameScores(proof.receipts, 9_000);
        proof.position = 2;
        vm.expectRevert();
        theCourt.challengeQuality(jobId, 0, proof);
    }

    function test_Challenge_OncePerKindForEver() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        uint256 caseId = challengeQuality(challenger, proof);
        vm.prank(operator);
        expectRefused(IDisputeCourt.AlreadyDisputed.selector);
        theCourt.challengeQuality(jobId, 0, proof);
        find(caseId, 6_000, 6_000, 6_000);
        finish(caseId);
        // The window is as long as it was: go back into it.
        vm.warp(market.getRound(jobId, 0).settledAt + WINDOW - 1);
        vm.startPrank(operator);
        expectRefused(IDisputeCourt.AlreadyDisputed.selector);
        theCourt.challengeQuality(jobId, 0, proof);
        uint256 second = theCourt.challengeAvailability(jobId, 0, proof);
        vm.stopPrank();
        vm.assertEq(theCourt.getCase(second).paid, 6_000, "from what was found");
        vm.assertEq(theCourt.getCase(second).finding, 6_000);
    }

    /// @dev The first batches of a round are paid before its last: they can be disputed from then on.
    function test_Challenge_OfARoundThatIsNotOver() external {
        bytes memory receipts = receipt(jobId, 0, 1, UNITS);
        settle(jobId, false, receipts, 9_000);
        vm.assertEq(market.getRound(jobId, 0).settledAt, 0);
        later(WINDOW + 1);
        IDisputeCourt.ReceiptProof memory proof = proofOf(receipts, 9_000, 0);
        vm.startPrank(challenger);
        uint256 caseId = theCourt.challengeQuality(jobId, 0, proof);
        expectRefused(IDisputeCourt.WindowOver.selector);
        theCourt.challengeQuality(jobId, 1, proof);
        vm.stopPrank();
        find(caseId, 10_000, 10_000, 10_000);
        finish(caseId);
        vm.assertEq(creditOf(1), FULL, "paid what it is worth, though the round may never end");
    }

    /*//////////////////////////////////////////////////////////////
                               OMISSIONS
    //////////////////////////////////////////////////////////////*/

    function test_Claim_HoldsTheRecord() external {
        uint256 caseId = openOmission();
        IDisputeCourt.Case memory dispute = theCourt.getCase(caseId);
        vm.assertTrue(dispute.kind == IDisputeCourt.Kind.Omission);
        vm.assertEq(dispute.paid, 0);
        vm.assertEq(dispute.finding, 0);
        vm.assertEq(dispute.units, UNITS);
        vm.assertTrue(market.getSeat(jobId, 3).claimed);
        later(WINDOW);
        expectRefused(TooEarly.selector);
        market.lapseRecord(jobId, 3);
        checkBooks();
    }

    function test_Claim_OfAnAcceptedRound() external {
        (IDisputeCourt.SignedReceipt memory claim, SettledBatch[] memory batches, bytes[] memory receipts) =
            leaveOut();
        vm.prank(requester);
        market.acceptRound(jobId, 0, "");
        vm.prank(operator);
        theCourt.claimOmitted(claim, batches, receipts);
    }

    function test_Claim_OnlyOfWhatWasRecordedAndLeftOut() external {
        (IDisputeCourt.SignedReceipt memory claim, SettledBatch[] memory batches, bytes[] memory receipts) =
            leaveOut();
        vm.startPrank(operator);
        expectRefused(IRoundProofErrors.BatchesMissing.selector);
        theCourt.claimOmitted(claim, batches, new bytes[](0));
        expectRefused(IRoundProofErrors.BatchNotShown.selector);
        theCourt.claimOmitted(claim, batches, new bytes[](1));
        IDisputeCourt.SignedReceipt memory present = signedReceipt(0, 1, UNITS, artifactOf(1));
        expectRefused(IRoundProofErrors.ReceiptPresent.selector);
        theCourt.claimOmitted(present, batches, receipts);
        IDisputeCourt.SignedReceipt memory unrecorded = signedReceipt(0, 2, UNITS, artifactOf(2));
        expectRefused(NoRecord.selector);
        theCourt.claimOmitted(unrecorded, batches, receipts);
        IDisputeCourt.SignedReceipt memory more = signedReceipt(0, 3, UNITS - 1, artifactOf(3));
        expectRefused(IDisputeCourt.UnitsMismatch.selector);
        theCourt.claimOmitted(more, batches, receipts);
        more.units = UNITS;
        expectRefused(IDisputeCourt.NotSignedByNode.selector);
        theCourt.claimOmitted(more, batches, receipts);
        theCourt.claimOmitted(claim, batches, receipts);
        expectRefused(IDisputeCourt.AlreadyDisputed.selector);
        theCourt.claimOmitted(claim, batches, receipts);
    }

    function test_Claim_OnlyWithinTheWindow() external {
        (IDisputeCourt.SignedReceipt memory claim, SettledBatch[] memory batches, bytes[] memory receipts) =
            leaveOut();
        later(WINDOW);
        expectRefused(IDisputeCourt.WindowOver.selector);
        theCourt.claimOmitted(claim, batches, receipts);
    }

    /*//////////////////////////////////////////////////////////////
                              AVAILABILITY
    //////////////////////////////////////////////////////////////*/

    function test_ShowArtifact_ByTheNodesKey_InTime() external {
        uint256 caseId = openAvailability(9_000);
        bytes memory forged = pointerSignature(HOT + 2, caseId, "x");
        expectRefused(IDisputeCourt.NotSignedByNode.selector);
        theCourt.showArtifact(caseId, "x", forged);
        uint64 opened = time();
        later(ANSWER / 2 - 1);
        show(caseId);
        expectStage(caseId, IDisputeCourt.Stage.Shown);
        vm.assertEq(theCourt.getCase(caseId).deadline, opened + ANSWER);
        uint256 late = openAvailability(9_000);
        bytes memory signature = pointerSignature(HOT + 1, late, "x");
        later(ANSWER / 2);
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.showArtifact(late, "x", signature);
        theCourt.decide(late);
        vm.assertEq(theCourt.getCase(late).finding, 0);
        vm.assertTrue(theCourt.getCase(late).found);
    }

    function test_Decide_NotWhileTheArtifactMayBeShown() external {
        uint256 caseId = openAvailability(9_000);
        later(ANSWER / 2 - 1);
        expectRefused(IDisputeCourt.TooEarly.selector);
        theCourt.decide(caseId);
    }

    function test_Contest_InTime() external {
        uint256 caseId = openAvailability(9_000);
        vm.prank(challenger);
        expectRefused(IDisputeCourt.WrongStage.selector);
        theCourt.contest(caseId);
        show(caseId);
        uint256 before = token.balanceOf(challenger);
        vm.prank(challenger);
        theCourt.contest(caseId);
        vm.assertEq(token.balanceOf(challenger), before, "its bond is there already");
        vm.assertEq(theCourt.bonds(), BOND);
        expectStage(caseId, IDisputeCourt.Stage.Drawing);
        vm.assertFalse(theCourt.getCase(caseId).found);
        uint256 late = openAvailability(9_000);
        show(late);
        later(ANSWER);
        vm.prank(challenger);
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.contest(late);
    }

    function test_Contest_ByAnother_TakesTheChallengersPlace() external {
        uint256 caseId = openAvailability(9_000);
        show(caseId);
        uint256 before = token.balanceOf(requester);
        vm.prank(requester);
        theCourt.contest(caseId);
        vm.assertEq(before - token.balanceOf(requester), BOND);
        vm.assertEq(theCourt.owedTo(challenger), BOND, "back to the first");
        vm.assertEq(theCourt.getCase(caseId).challenger, requester);
        vm.assertEq(theCourt.bonds(), BOND);
        checkBooks();
    }

    /// @dev A key that was replaced twice is still the node's.
    function test_ShowArtifact_ByAnyKeyThatTheNodeHad() external {
        uint256 caseId = openAvailability(9_000);
        rotate(1, 0x7777);
        rotate(1, 0x8888);
        show(caseId);
        expectStage(caseId, IDisputeCourt.Stage.Shown);
    }

    /*//////////////////////////////////////////////////////////////
                                 DRAW
    //////////////////////////////////////////////////////////////*/

    function test_Draw_ByABlockToCome() external {
        uint256 caseId = openQuality(9_000);
        uint64 deadline = theCourt.getCase(caseId).deadline;
        vm.roll(vm.getBlockNumber() + 2);
        expectRefused(IDisputeCourt.DrawNotReady.selector);
        theCourt.drawCommittee(caseId);
        vm.roll(vm.getBlockNumber() + 257);
        theCourt.drawCommittee(caseId);
        expectStage(caseId, IDisputeCourt.Stage.Drawing);
        vm.assertEq(theCourt.getCase(caseId).drawBlock, vm.getBlockNumber() + 2, "scheduled anew");
        vm.assertEq(theCourt.getCase(caseId).deadline, deadline);
        vm.assertEq(draw(caseId).length, 3);
        expectStage(caseId, IDisputeCourt.Stage.Committing);
    }

    function testFuzz_Draw_IsImpartial(uint256 block_) external {
        vm.roll(bound(block_, 2_000, 1e9));
        uint256 caseId = openQuality(9_000);
        uint32[] memory members = draw(caseId);
        vm.assertEq(members.length, 3);
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertTrue(members[i] > 2, "signed the batch");
            vm.assertTrue(theCourt.getVote(caseId, members[i]).drawn);
            for (uint256 j = 0; j < i; ++j) {
                vm.assertTrue(members[i] != members[j]);
            }
        }
    }

    function test_Draw_LeavesOutAttestorsOfAParty() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        for (uint32 i = 5; i <= 8; ++i) {
            depart(i);
        }
        fundFor(walletOf(4), address(theCourt));
        uint256 caseId = challengeQuality(walletOf(4), proof);
        uint32[] memory members = draw(caseId);
        vm.assertEq(members.length, 1);
        vm.assertEq(members[0], 3);
    }

    function test_Draw_OfFewer_TakesAll() external {
        uint256 caseId = openQuality(9_000);
        for (uint32 i = 5; i <= 8; ++i) {
            depart(i);
        }
        vm.assertEq(draw(caseId).length, 2);
    }

    function test_Draw_OfNobody_CallsTheArbiter() external {
        uint256 caseId = openQuality(9_000);
        for (uint32 i = 3; i <= 8; ++i) {
            depart(i);
        }
        vm.assertEq(draw(caseId).length, 0);
        expectStage(caseId, IDisputeCourt.Stage.Appealed);
        vm.assertEq(theCourt.getCase(caseId).deadline, time() + RULING);
        vm.assertEq(theCourt.getCase(caseId).appellant, address(0));
    }

    function test_Draw_NotAfterItsTime() external {
        uint256 caseId = openQuality(9_000);
        later(COMMIT);
        vm.roll(vm.getBlockNumber() + 3);
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.drawCommittee(caseId);
        theCourt.decide(caseId);
        vm.assertEq(theCourt.getCase(caseId).finding, 9_000);
        vm.assertFalse(theCourt.getCase(caseId).found);
    }

    /*//////////////////////////////////////////////////////////////
                                VOTES
    //////////////////////////////////////////////////////////////*/

    function test_Commit_OnceByAMember_InTime() external {
        uint256 caseId = openQuality(9_000);
        uint32[] memory members = draw(caseId);
        expectRefused(IDisputeCourt.NotInCommittee.selector);
        theCourt.commitVote(caseId, BASE);
        vm.startPrank(signerOf(members[0]));
        expectRefused(IDisputeCourt.EmptyCommitment.selector);
        theCourt.commitVote(caseId, 0);
        theCourt.commitVote(caseId, BASE);
        expectRefused(IDisputeCourt.AlreadyVoted.selector);
        theCourt.commitVote(caseId, EVIDENCE);
        vm.stopPrank();
        later(COMMIT);
        vm.prank(signerOf(members[1]));
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.commitVote(caseId, BASE);
    }

    function test_Reveal_WhatWasCommitted_InTime() external {
        uint256 caseId = openQuality(9_000);
        uint32[] memory members = draw(caseId);
        commit(caseId, members[0], 10_001);
        commit(caseId, members[1], 6_000);
        vm.prank(signerOf(members[1]));
        expectRefused(IDisputeCourt.WrongStage.selector);
        theCourt.revealVote(caseId, 6_000, saltOf(members[1]));
        later(COMMIT);
        vm.prank(signerOf(members[0]));
        expectRefused(IDisputeCourt.QualityAboveMax.selector);
        theCourt.revealVote(caseId, 10_001, saltOf(members[0]));
        vm.startPrank(signerOf(members[1]));
        expectRefused(IDisputeCourt.CommitmentMismatch.selector);
        theCourt.revealVote(caseId, 6_001, saltOf(members[1]));
        theCourt.revealVote(caseId, 6_000, saltOf(members[1]));
        expectRefused(IDisputeCourt.AlreadyVoted.selector);
        theCourt.revealVote(caseId, 6_000, saltOf(members[1]));
        vm.stopPrank();
        vm.prank(signerOf(members[2]));
        expectRefused(IDisputeCourt.CommitmentMismatch.selector);
        theCourt.revealVote(caseId, 6_000, saltOf(members[2]));
        later(REVEAL);
        vm.prank(signerOf(members[0]));
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.revealVote(caseId, 10_000, saltOf(members[0]));
    }

    /// @dev A commitment names its signer: copied, it opens for nobody.
    function test_Reveal_NotACopiedCommitment() external {
        uint256 caseId = openQuality(9_000);
        uint32[] memory members = draw(caseId);
        commit(caseId, members[0], 6_000);
        commit(caseId, members[2], 6_000);
        bytes32 copied = commitmentOf(caseId, members[0], 6_000);
        vm.prank(signerOf(members[1]));
        theCourt.commitVote(caseId, copied);
        reveal(caseId, members[0], 6_000);
        vm.prank(signerOf(members[1]));
        expectRefused(IDisputeCourt.CommitmentMismatch.selector);
        theCourt.revealVote(caseId, 6_000, saltOf(members[0]));
    }

    function testFuzz_Decide_TheLowerMedian(uint16 a, uint16 b, uint16 c) external {
        (a, b, c) = (uint16(a % 10_001), uint16(b % 10_001), uint16(c % 10_001));
        uint256 caseId = openQuality(9_000);
        find(caseId, a, b, c);
        uint16 low = a < b ? a : b;
        uint16 high = a < b ? b : a;
        uint16 median = c < low ? low : c > high ? high : c;
        vm.assertEq(theCourt.getCase(caseId).finding, median);
        vm.assertEq(theCourt.getCase(caseId).deadline, time() + APPEAL);
        expectStage(caseId, IDisputeCourt.Stage.Decided);
    }

    function test_Decide_OfTwo_TheLower_AndTheSilentPays() external {
        uint256 caseId = openQuality(9_000);
        uint32[] memory members = draw(caseId);
        commit(caseId, members[0], 7_000);
        commit(caseId, members[1], 6_000);
        expectRefused(IDisputeCourt.WrongStage.selector);
        theCourt.decide(caseId);
        later(COMMIT);
        reveal(caseId, members[0], 7_000);
        expectRefused(IDisputeCourt.TooEarly.selector);
        theCourt.decide(caseId);
        reveal(caseId, members[1], 6_000);
        theCourt.decide(caseId);
        vm.assertEq(theCourt.getCase(caseId).finding, 6_000);
        vm.assertEq(bondOf(members[0]), MIN_BOND);
        vm.assertEq(bondOf(members[2]), MIN_BOND - MIN_BOND / 100);
        vm.assertEq(theRegistry.insurance(), MIN_BOND / 100);
        checkBooks();
    }

    function test_Decide_OnFewerThanHalf_IsTheDefault() external {
        uint256 caseId = openQuality(9_000);
        uint32[] memory members = draw(caseId);
        for (uint256 i = 0; i < 3; ++i) {
            commit(caseId, members[i], 1);
        }
        reveal(caseId, members[1], 1);
        later(REVEAL);
        theCourt.decide(caseId);
        vm.assertFalse(theCourt.getCase(caseId).found);
        vm.assertEq(theCourt.getCase(caseId).finding, 9_000);
        vm.assertEq(theRegistry.insurance(), 2 * MIN_BOND / 100);
    }

    function test_Decide_OnSilence_IsTheDefault() external {
        uint256 caseId = openQuality(9_000);
        draw(caseId);
        later(COMMIT);
        theCourt.decide(caseId);
        vm.assertFalse(theCourt.getCase(caseId).found);
        vm.assertEq(theRegistry.insurance(), 3 * MIN_BOND / 100);
        expectRefused(IDisputeCourt.WrongStage.selector);
        theCourt.decide(caseId);
        checkBooks();
    }

    /*//////////////////////////////////////////////////////////////
                                APPEALS
    //////////////////////////////////////////////////////////////*/

    function test_Appeal_ByAParty_InTime() external {
        uint256 caseId = openQuality(9_000);
        find(caseId, 6_000, 6_000, 6_000);
        expectRefused(IDisputeCourt.Unauthorized.selector);
        theCourt.appeal(caseId);
        expectRefused(IDisputeCourt.TooEarly.selector);
        theCourt.execute(caseId);
        uint256 snapshot = vm.snapshotState();
        address[3] memory parties = [challenger, operator, requester];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(parties[i]);
            theCourt.appeal(caseId);
            vm.assertEq(theCourt.bonds(), 2 * BOND);
            vm.assertEq(theCourt.getCase(caseId).appellant, parties[i]);
            expectStage(caseId, IDisputeCourt.Stage.Appealed);
            vm.prank(parties[i]);
            expectRefused(IDisputeCourt.WrongStage.selector);
            theCourt.appeal(caseId);
            checkBooks();
            vm.revertToState(snapshot);
        }
        later(APPEAL);
        vm.prank(operator);
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.appeal(caseId);
    }

    function test_Rule_ByTheArbiter_OnceInTime() external {
        uint256 caseId = openQuality(9_000);
        find(caseId, 6_000, 6_000, 6_000);
        vm.startPrank(arbiter);
        expectRefused(IDisputeCourt.WrongStage.selector);
        theCourt.rule(caseId, 9_000);
        vm.stopPrank();
        vm.prank(operator);
        theCourt.appeal(caseId);
        expectRefused(IDisputeCourt.Unauthorized.selector);
        theCourt.rule(caseId, 9_000);
        vm.startPrank(arbiter);
        expectRefused(IDisputeCourt.QualityAboveMax.selector);
        theCourt.rule(caseId, 10_001);
        theCourt.rule(caseId, 8_900);
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.rule(caseId, 1);
        vm.stopPrank();
        vm.assertEq(theCourt.getCase(caseId).finding, 8_900);
        vm.assertEq(theCourt.getCase(caseId).decided, 6_000);
        theCourt.execute(caseId);
        expectRefused(IDisputeCourt.WrongStage.selector);
        theCourt.execute(caseId);
    }

    function test_Rule_NotAfterItsTime() external {
        uint256 caseId = openQuality(9_000);
        find(caseId, 6_000, 6_000, 6_000);
        vm.prank(operator);
        theCourt.appeal(caseId);
        later(RULING);
        vm.prank(arbiter);
        expectRefused(IDisputeCourt.TooLate.selector);
        theCourt.rule(caseId, 9_000);
        finish(caseId);
        vm.assertEq(theCourt.getCase(caseId).finding, 6_000, "the committee's stands");
    }
}
