// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../src/interfaces/IDisputeCourt.sol";
import {Court, CourtTest} from "./utils/CourtTest.sol";
import {vm} from "./utils/Vm.sol";

/// @notice See CourtExecute.tree. What a case costs and brings. A receipt is worth FULL, 5 units of the token, at
/// full quality; a bond is 10.
contract CourtExecuteTest is CourtTest {
    function spent() internal view returns (uint128) {
        return market.getJob(jobId).spent;
    }

    function owed(address account) internal view returns (uint128) {
        return theCourt.owedTo(account);
    }

    function checkCommitteePaid(uint32[] memory members, uint128 fee) internal view {
        for (uint256 i = 0; i < members.length; ++i) {
            vm.assertEq(owed(walletOf(members[i])), fee, "fee");
        }
    }

    /*//////////////////////////////////////////////////////////////
                             PAID RIGHTLY
    //////////////////////////////////////////////////////////////*/

    function test_WithinTheTolerance_TheBondIsLost() external {
        uint256 caseId = openQuality(9_000);
        uint128 before = spent();
        uint32[] memory members = find(caseId, 8_500, 8_500, 8_500);
        finish(caseId);
        uint128 fee = BOND / 2 / 3;
        checkCommitteePaid(members, fee);
        vm.assertEq(theRegistry.insurance(), BOND - 3 * fee);
        vm.assertEq(owed(operator), 0);
        vm.assertEq(owed(challenger), 0);
        vm.assertEq(spent(), before);
        vm.assertEq(creditOf(1), FULL * 9 / 10);
        vm.assertEq(theCourt.bonds(), 0);
        vm.assertEq(bondOf(1), MIN_BOND);
    }

    function test_WithinTheTolerance_OfTheOperatorsOwn_TheBondIsLostToo() external {
        uint256 caseId = challengeQuality(operator, settleRoundAt(9_000, 0));
        find(caseId, 9_500, 9_000, 9_500);
        finish(caseId);
        vm.assertEq(owed(requester), 0);
        vm.assertEq(owed(operator), 0);
        vm.assertEq(theRegistry.insurance(), BOND - 3 * (BOND / 2 / 3));
    }

    function test_ShownAndNotContested_TheBondIsInsurance() external {
        uint256 caseId = openAvailability(9_000);
        show(caseId);
        vm.expectPartialRevert(IDisputeCourt.TooEarly.selector);
        theCourt.execute(caseId);
        finish(caseId);
        vm.assertEq(owed(operator), 0);
        vm.assertEq(theRegistry.insurance(), BOND);
        vm.assertEq(creditOf(1), FULL * 9 / 10);
    }

    /*//////////////////////////////////////////////////////////////
                            WORTH LESS, MORE
    //////////////////////////////////////////////////////////////*/

    function test_WorthLess_TheDifferenceGoesBackTwice() external {
        uint256 caseId = openQuality(9_000);
        uint128 before = spent();
        uint32[] memory members = find(caseId, 7_000, 7_000, 7_000);
        finish(caseId);
        uint128 overpaid = FULL * 2_000 / 10_000; // 1e6, and as much again: of it 1/4 costs, 3/8 insurance, 3/8 job
        vm.assertEq(creditOf(1), FULL * 9 / 10 - 2 * overpaid);
        vm.assertEq(before - spent(), overpaid + 375_000);
        vm.assertEq(market.owedTo(challenger), 250_000);
        (,,,, uint128 insurance) = market.holdings();
        vm.assertEq(insurance, 375_000);
        vm.assertEq(owed(challenger), BOND);
        checkCommitteePaid(members, 0);
        vm.assertEq(bondOf(1), MIN_BOND, "2,000 off is not gross");
        vm.assertEq(market.getNodeMetrics(1).faults, 1);
    }

    function test_NotShown_AllIsTakenBack() external {
        uint256 caseId = openAvailability(9_000);
        later(ANSWER / 2);
        theCourt.decide(caseId);
        finish(caseId);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(bondOf(1), MIN_BOND, "the artifact may have been there");
    }

    function test_ContestedAndNotThere_AllIsTakenBack() external {
        uint256 caseId = openAvailability(9_000);
        show(caseId);
        vm.prank(challenger);
        theCourt.contest(caseId);
        find(caseId, 0, 0, 9_000);
        finish(caseId);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(owed(challenger), BOND);
    }

    /// @dev Two cases at once take back what was paid once, in either order.
    function testFuzz_BothKinds_TakeBackOnce(bool availabilityFirst, uint16 finding) external {
        finding = uint16(finding % 8_000);
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        vm.prank(challenger);
        uint256 gone = theCourt.challengeAvailability(jobId, 0, proof);
        uint256 quality = challengeQuality(challenger, proof);
        vm.assertEq(market.getNodeMetrics(1).withdrawable, 0, "both hold");
        find(quality, finding, finding, finding);
        later(ANSWER / 2);
        theCourt.decide(gone);
        uint128 before = spent();
        finish(availabilityFirst ? gone : quality);
        finish(availabilityFirst ? quality : gone);
        uint128 pay = FULL * 9 / 10;
        vm.assertEq(creditOf(1), 0);
        uint128 costs = market.owedTo(challenger);
        (,,,, uint128 insurance) = market.holdings();
        vm.assertEq(before - spent() + costs + insurance, 2 * pay, "the pay, and as much again");
        vm.assertEq(owed(challenger), 2 * BOND);
    }

    /// @dev An artifact that can be had makes a receipt worth no more than its quality.
    function test_AvailabilityNeverPays() external {
        uint256 caseId = openAvailability(6_000);
        show(caseId);
        vm.prank(challenger);
        theCourt.contest(caseId);
        find(caseId, 10_000, 10_000, 10_000);
        finish(caseId);
        vm.assertEq(creditOf(1), FULL * 6 / 10);
        vm.assertEq(owed(challenger), 0);
    }

    function test_TheHoldEndsWithTheCase() external {
        uint256 caseId = openQuality(9_000);
        later(WINDOW);
        vm.assertEq(market.getNodeMetrics(1).withdrawable, 0);
        find(caseId, 9_000, 9_000, 9_000);
        finish(caseId);
        vm.assertEq(market.getNodeMetrics(1).withdrawable, FULL * 9 / 10);
    }

    function test_WorthLess_OfAnOperatorThatIsGone_EndsAllTheSame() external {
        uint256 caseId = openQuality(9_000);
        later(WINDOW);
        vm.startPrank(operator);
        for (uint32 i = 1; i <= 3; ++i) {
            market.retireNode(i);
        }
        market.requestUnstake(3 * MIN_STAKE);
        vm.stopPrank();
        find(caseId, 0, 0, 0);
        vm.warp(time() + UNBONDING);
        vm.prank(operator);
        market.unstake();
        finish(caseId);
        vm.assertEq(owed(challenger), BOND);
    }

    function test_WorthMore_TheMarketPaysTheDifference() external {
        uint256 caseId = challengeQuality(operator, settleRoundAt(6_000, 0));
        uint128 before = spent();
        find(caseId, 8_000, 8_000, 8_000);
        finish(caseId);
        vm.assertEq(creditOf(1), FULL * 8 / 10);
        vm.assertEq(spent() - before, FULL * 2 / 10);
        vm.assertEq(owed(operator), BOND);
    }

    function test_WorthMore_OfAClosedJob_HasNothingToTake() external {
        uint256 caseId = challengeQuality(operator, settleRoundAt(6_000, 0));
        close(jobId);
        find(caseId, 8_000, 8_000, 8_000);
        finish(caseId);
        vm.assertEq(creditOf(1), FULL * 6 / 10);
        vm.assertEq(owed(operator), BOND);
    }

    /// @dev What the escrow could not pay was not paid: a later case must not take it back.
    function test_WorthMore_OfALittleEscrow_StandsAtWhatWasPaid() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(6_000, 0);
        uint256 caseId = challengeQuality(operator, proof);
        Job memory job = market.getJob(jobId);
        // All but half of the difference is spent by the time it is found.
        uint128 left = FULL / 10;
        while (job.escrow - job.spent > left) {
            uint128 units = (job.escrow - job.spent - left) / RATE;
            bytes memory packed = receipt(jobId, job.round, 2, uint64(units < CAPACITY ? units : CAPACITY));
            settle(jobId, true, packed);
            job = market.getJob(jobId);
        }
        find(caseId, 8_000, 8_000, 8_000);
        finish(caseId);
        job = market.getJob(jobId);
        vm.assertEq(job.spent, job.escrow);
        vm.warp(market.getRound(jobId, 0).settledAt);
        vm.prank(operator);
        uint256 second = theCourt.challengeAvailability(jobId, 0, proof);
        vm.assertEq(theCourt.getCase(second).paid, 7_000);
    }

    function test_FoundByNobody_TheBondGoesBack() external {
        uint256 caseId = openQuality(9_000);
        draw(caseId);
        later(COMMIT);
        theCourt.decide(caseId);
        finish(caseId);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(creditOf(1), FULL * 9 / 10);
        uint256 before = token.balanceOf(challenger);
        vm.prank(challenger);
        theCourt.collect();
        vm.assertEq(token.balanceOf(challenger) - before, BOND);
        checkBooks();
    }

    function testFuzz_ADifference_IsWhatTheReceiptWouldHaveBeenPaid(uint16 paid, uint16 finding) external {
        (paid, finding) = (uint16(paid % 10_001), uint16(finding % 10_001));
        uint256 caseId = openQuality(paid);
        uint128 before = creditOf(1);
        vm.assertEq(before, uint256(UNITS) * RATE * paid / 10_000);
        find(caseId, finding, finding, finding);
        finish(caseId);
        uint16 off = paid > finding ? paid - finding : finding - paid;
        uint256 due = uint256(UNITS) * RATE * finding / 10_000;
        if (off <= TOLERANCE) {
            vm.assertEq(creditOf(1), before);
            vm.assertEq(owed(challenger), 0);
        } else if (finding > paid) {
            vm.assertEq(creditOf(1), due);
        } else {
            uint256 twice = 2 * (before - due);
            vm.assertEq(creditOf(1), before > twice ? before - twice : 0);
            uint256 fromStake = before > twice ? 0 : twice - before;
            vm.assertEq(market.getOperator(operator).stake, 3 * MIN_STAKE - fromStake);
        }
        vm.assertEq(theCourt.bonds(), 0);
    }

    /*//////////////////////////////////////////////////////////////
                               OMISSIONS
    //////////////////////////////////////////////////////////////*/

    function test_AnOmittedReceipt_IsPaidWhatItIsWorth() external {
        uint256 caseId = openOmission();
        uint128 before = spent();
        find(caseId, 8_000, 8_000, 8_000);
        finish(caseId);
        vm.assertEq(creditOf(3), FULL * 8 / 10);
        vm.assertEq(spent() - before, FULL * 8 / 10);
        vm.assertEq(owed(operator), BOND);
        vm.assertEq(market.getSeat(jobId, 3).recordedRound, 0);
        vm.assertEq(market.getJob(jobId).records, 0);
        vm.assertEq(market.getJob(jobId).reserved, 0);
        vm.assertEq(bondOf(1), MIN_BOND);
        close(jobId);
    }

    function test_AnOmittedReceipt_WorthNothing_CostsTheBond() external {
        uint256 caseId = openOmission();
        find(caseId, 0, 0, 8_000);
        finish(caseId);
        vm.assertEq(creditOf(3), 0);
        vm.assertEq(market.getJob(jobId).records, 0);
        vm.assertEq(owed(operator), 0);
        vm.assertEq(theRegistry.insurance(), BOND - 3 * (BOND / 2 / 3));
    }

    function test_AnOmittedReceipt_WorthLessThanTheTolerance_IsPaid() external {
        uint256 caseId = openOmission();
        find(caseId, 1, 1, 1);
        finish(caseId);
        vm.assertEq(creditOf(3), FULL / 10_000);
        vm.assertEq(owed(operator), BOND);
    }

    function test_AnOmittedReceipt_FoundByNobody_IsWorthNothing() external {
        uint256 caseId = openOmission();
        for (uint32 i = 3; i <= 8; ++i) {
            depart(i);
        }
        draw(caseId);
        finish(caseId);
        vm.assertEq(creditOf(3), 0);
        vm.assertEq(owed(operator), BOND);
        vm.assertEq(market.getJob(jobId).records, 0);
        vm.assertEq(market.getJob(jobId).reserved, 0);
    }

    /*//////////////////////////////////////////////////////////////
                                APPEALS
    //////////////////////////////////////////////////////////////*/

    function appealed(address by, uint16 found) internal returns (uint256 caseId) {
        caseId = openQuality(9_000);
        find(caseId, found, found, found);
        vm.prank(by);
        theCourt.appeal(caseId);
    }

    function ruled(uint256 caseId, uint16 finding) internal {
        vm.prank(arbiter);
        theCourt.rule(caseId, finding);
        finish(caseId);
    }

    function test_AnAppealThatMovesTheFinding_GetsItsBondBack() external {
        ruled(appealed(operator, 6_000), 9_000);
        vm.assertEq(owed(operator), BOND);
        vm.assertEq(theRegistry.insurance(), BOND - 3 * (BOND / 2 / 3), "and the challenger loses its own");
        vm.assertEq(owed(challenger), 0);
        vm.assertEq(creditOf(1), FULL * 9 / 10);
    }

    function test_AnAppealThatMovesNothing_LosesItsBond() external {
        ruled(appealed(operator, 7_000), 7_500);
        vm.assertEq(owed(operator), 0);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(theRegistry.insurance(), BOND);
        vm.assertEq(creditOf(1), FULL * 9 / 10 - 2 * FULL * 15 / 100, "by the arbiter's finding");
    }

    function test_AnAppealOfTheChallengerThatMovesNothing_LosesBoth() external {
        ruled(appealed(challenger, 9_000), 9_000);
        vm.assertEq(owed(challenger), 0);
        vm.assertEq(owed(operator), 0);
        vm.assertEq(theRegistry.insurance(), 2 * BOND - 3 * (BOND / 2 / 3));
    }

    function test_AnAppealThatNobodyAnswers_GetsItsBondBack() external {
        finish(appealed(operator, 7_000));
        vm.assertEq(owed(operator), BOND);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(creditOf(1), FULL * 9 / 10 - 2 * FULL * 2 / 10, "the committee's stands");
    }

    function test_AnArbiterWithoutACommittee_Decides() external {
        uint256 caseId = openQuality(9_000);
        for (uint32 i = 3; i <= 8; ++i) {
            depart(i);
        }
        draw(caseId);
        uint256 silent = vm.snapshotState();
        ruled(caseId, 7_000);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(creditOf(1), FULL * 9 / 10 - 2 * FULL * 2 / 10);
        vm.revertToState(silent);
        ruled(caseId, 9_000);
        vm.assertEq(theRegistry.insurance(), BOND, "no committee to share it with");
        vm.revertToState(silent);
        finish(caseId);
        vm.assertEq(owed(challenger), BOND, "nobody said a thing");
        vm.assertEq(creditOf(1), FULL * 9 / 10);
    }

    /*//////////////////////////////////////////////////////////////
                             A NEW COURT
    //////////////////////////////////////////////////////////////*/

    function test_AReplacedCourt_GivesAllBondsBack() external {
        uint256 caseId = appealed(operator, 6_000);
        vm.prank(timelock);
        market.setPeriphery(address(theRegistry), court);
        ruled(caseId, 5_000);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(owed(operator), BOND);
        vm.assertEq(creditOf(1), FULL * 9 / 10);
        vm.assertEq(bondOf(1), MIN_BOND);
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(9_000, 0);
        vm.prank(challenger);
        vm.expectPartialRevert(IDisputeCourt.CourtReplaced.selector);
        theCourt.challengeQuality(jobId, 1, proof);
    }

    function test_AReplacedCourt_LeavesARecord_ThatTheNextFrees() external {
        openOmission();
        Court former = theCourt;
        vm.expectPartialRevert(IDisputeCourt.NoOrphan.selector);
        former.freeRecord(jobId, 3);
        theCourt = deployCourt(courtTerms());
        vm.prank(timelock);
        market.setPeriphery(address(theRegistry), address(theCourt));
        vm.expectPartialRevert(IDisputeCourt.CourtReplaced.selector);
        former.freeRecord(jobId, 3);
        theCourt.freeRecord(jobId, 3);
        close(jobId);
        vm.expectPartialRevert(IDisputeCourt.NoOrphan.selector);
        theCourt.freeRecord(jobId, 3);
        theCourt = former;
        later(COMMIT);
        theCourt.decide(1);
        finish(1);
        vm.assertEq(owed(operator), BOND);
    }

    function test_AReplacedCourt_StillEndsItsCommittees() external {
        uint256 caseId = openQuality(9_000);
        draw(caseId);
        vm.prank(timelock);
        market.setPeriphery(address(theRegistry), court);
        later(COMMIT);
        theCourt.decide(caseId);
        finish(caseId);
        vm.assertEq(owed(challenger), BOND);
        vm.assertEq(theRegistry.insurance(), 0);
    }
}
