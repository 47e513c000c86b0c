// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../src/interfaces/IDisputeCourt.sol";
import {CourtTest} from "./utils/CourtTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

/// @notice See CourtFaults.tree.
contract CourtFaultsTest is CourtTest {
    bytes32 internal constant ONE = keccak256("one artifact");
    bytes32 internal constant OTHER = keccak256("another artifact");

    function prove(
        IDisputeCourt.SignedReceipt memory one,
        IDisputeCourt.SignedReceipt memory other,
        bytes4 refusal
    ) internal {
        if (refusal != 0) vm.expectPartialRevert(refusal);
        vm.prank(challenger);
        theCourt.proveReceiptFault(one, other);
    }

    /*//////////////////////////////////////////////////////////////
                                RECEIPTS
    //////////////////////////////////////////////////////////////*/

    function test_TwoReceipts_CostTheNode() external {
        settleRoundAt(10_000, 0);
        vm.assertEq(creditOf(1), FULL);
        IDisputeCourt.SignedReceipt memory one = signedReceipt(0, 1, UNITS, ONE);
        prove(one, signedReceipt(0, 1, UNITS, OTHER), 0);

        vm.assertEq(creditOf(1), 0, "credit first");
        vm.assertEq(market.getOperator(operator).stake, 3 * MIN_STAKE - (MIN_STAKE - FULL));
        vm.assertEq(market.owedTo(challenger), BOND, "a quarter is more than a bond");
        vm.assertEq(market.getNodeMetrics(1).faults, 1);
        IDisputeCourt.Case memory dispute = theCourt.getCase(1);
        vm.assertTrue(dispute.kind == IDisputeCourt.Kind.Fault && dispute.found);
        vm.assertEq(dispute.nodeId, 1);
        expectStage(1, IDisputeCourt.Stage.Executed);
        checkBooks();
    }

    function test_TwoReceipts_ArePunishedOnce() external {
        IDisputeCourt.SignedReceipt memory one = signedReceipt(0, 1, UNITS, ONE);
        prove(one, signedReceipt(0, 1, UNITS, OTHER), 0);
        bytes4 refusal = IDisputeCourt.AlreadyPunished.selector;
        prove(signedReceipt(0, 1, UNITS, OTHER), one, refusal);
        prove(one, signedReceipt(0, 1, UNITS - 1, ONE), refusal);
        prove(signedReceipt(1, 1, UNITS, ONE), signedReceipt(1, 1, UNITS, OTHER), refusal);
        vm.assertEq(theCourt.caseCount(), 1);
        prove(signedReceipt(0, 2, UNITS, ONE), signedReceipt(0, 2, UNITS, OTHER), 0);
    }

    function test_TwoReceipts_OfARoundFarAhead_ProveNothing() external {
        bytes4 refusal = IDisputeCourt.RoundOutOfReach.selector;
        prove(signedReceipt(8, 1, UNITS, ONE), signedReceipt(8, 1, UNITS, OTHER), refusal);
        prove(signedReceipt(7, 1, UNITS, ONE), signedReceipt(7, 1, UNITS, OTHER), 0);
    }

    function test_TwoReceipts_MustExcludeEachOther() external {
        bytes4 refusal = IDisputeCourt.NoFault.selector;
        IDisputeCourt.SignedReceipt memory one = signedReceipt(0, 1, UNITS, ONE);
        prove(one, one, refusal);
        prove(one, signedReceipt(1, 1, UNITS, OTHER), refusal);
        prove(one, signedReceipt(0, 2, UNITS, OTHER), refusal);
        IDisputeCourt.SignedReceipt memory other = signedReceipt(0, 1, UNITS, OTHER);
        other.jobId += 1;
        prove(one, other, refusal);
    }

    function test_TwoReceipts_MustBeSignedByTheNode() external {
        bytes4 refusal = IDisputeCourt.NotSignedByNode.selector;
        IDisputeCourt.SignedReceipt memory one = signedReceipt(0, 1, UNITS, ONE);
        IDisputeCourt.SignedReceipt memory other = signedReceipt(0, 1, UNITS, OTHER);
        other.units -= 1;
        prove(one, other, refusal);
        prove(other, one, refusal);
        other.signature = "";
        prove(other, one, refusal);
    }

    function test_TwoReceipts_OfAJobWithoutASeat_ProveNothing() external {
        register(OPERATOR);
        prove(
            signedReceipt(0, 4, UNITS, ONE),
            signedReceipt(0, 4, UNITS, OTHER),
            IDisputeCourt.NotSeated.selector
        );
    }

    function test_TwoReceipts_OfAFormerKey_ButNotOfTwoKeys() external {
        IDisputeCourt.SignedReceipt memory one = signedReceipt(0, 1, UNITS, ONE);
        IDisputeCourt.SignedReceipt memory other = signedReceipt(0, 1, UNITS, OTHER);
        rotate(1, 0x7777);
        rotate(1, 0x8888);
        Signing.Work memory work = Signing.Work(jobId, 0, 1, UNITS, BASE, ONE);
        bytes memory packed = Signing.packedReceipt(market, 0x7777, work);
        IDisputeCourt.SignedReceipt memory byNew = signedReceipt(0, 1, UNITS, ONE);
        for (uint256 i = 0; i < 65; ++i) {
            byNew.signature[i] = packed[44 + i];
        }
        prove(byNew, other, IDisputeCourt.NotSignedByNode.selector);
        prove(one, other, 0);
    }

    /*//////////////////////////////////////////////////////////////
                              ATTESTATIONS
    //////////////////////////////////////////////////////////////*/

    function attested(uint256 key, uint32 batch, uint32 epoch, bytes32 receipts, bytes32 commitments)
        internal
        view
        returns (IDisputeCourt.SignedAttestation memory)
    {
        BatchHeader memory header = batchOf(jobId, 0, batch, true);
        header.epoch = epoch;
        bytes memory signature = Signing.attestation(market, key, header, receipts, commitments);
        return IDisputeCourt.SignedAttestation(header, receipts, commitments, signature);
    }

    function prove(
        IDisputeCourt.SignedAttestation memory one,
        IDisputeCourt.SignedAttestation memory other,
        bytes4 refusal
    ) internal {
        if (refusal != 0) vm.expectPartialRevert(refusal);
        vm.prank(challenger);
        theCourt.proveAttestationFault(one, other);
    }

    function test_TwoAttestations_CostTheAttestor() external {
        prove(attested(SIGNER + 3, 0, 2, ONE, ONE), attested(SIGNER + 3, 0, 2, OTHER, ONE), 0);
        uint128 taken = MIN_BOND * 3 / 10;
        vm.assertEq(bondOf(3), MIN_BOND - taken);
        vm.assertEq(theRegistry.owedTo(challenger), BOND);
        vm.assertEq(theRegistry.owedTo(requester), (taken - BOND) / 2);
        vm.assertEq(theRegistry.getAttestor(3).faults, 1);
        checkBooks();
        bytes4 refusal = IDisputeCourt.AlreadyPunished.selector;
        prove(attested(SIGNER + 3, 0, 2, ONE, OTHER), attested(SIGNER + 3, 0, 2, OTHER, ONE), refusal);
    }

    function test_TwoAttestations_DifferInTheListOfCommitments() external {
        prove(attested(SIGNER + 1, 0, 2, ONE, ONE), attested(SIGNER + 1, 0, 2, ONE, OTHER), 0);
    }

    function test_TwoAttestations_OfTwoEpochs() external {
        depart(8);
        depart(3);
        for (uint32 i = 5; i < 8; ++i) {
            depart(i);
        }
        theRegistry.beginEpoch();
        prove(
            attested(SIGNER + 3, 0, 2, ONE, ONE),
            attested(SIGNER + 3, 0, 3, ONE, ONE),
            IDisputeCourt.NotSignedByMember.selector
        );
        prove(attested(SIGNER + 1, 0, 2, ONE, ONE), attested(SIGNER + 1, 0, 3, ONE, ONE), 0);
    }

    function test_TwoAttestations_MustExcludeEachOther() external {
        bytes4 refusal = IDisputeCourt.NoFault.selector;
        IDisputeCourt.SignedAttestation memory one = attested(SIGNER + 1, 0, 2, ONE, ONE);
        prove(one, one, refusal);
        prove(one, attested(SIGNER + 1, 1, 2, OTHER, ONE), refusal);
    }

    function test_TwoAttestations_MustBeOneMembers() external {
        bytes4 refusal = IDisputeCourt.NotSignedByMember.selector;
        IDisputeCourt.SignedAttestation memory one = attested(SIGNER + 1, 0, 2, ONE, ONE);
        prove(one, attested(SIGNER + 2, 0, 2, OTHER, ONE), refusal);
        prove(attested(SIGNER + 4, 0, 2, ONE, ONE), attested(SIGNER + 4, 0, 2, OTHER, ONE), refusal);
        prove(attested(0x999, 0, 2, ONE, ONE), attested(0x999, 0, 2, OTHER, ONE), refusal);
        one.receipts = OTHER;
        prove(one, attested(SIGNER + 1, 0, 2, ONE, ONE), refusal);
    }

    /*//////////////////////////////////////////////////////////////
                                 SCORES
    //////////////////////////////////////////////////////////////*/

    /// @dev Members 0 and 1 of epoch 2 scored node 1's receipt of round 0; member 1's number holds what it is told.
    function scored(uint8 member, uint16[2] memory scores, uint8 listedAt)
        internal
        view
        returns (IDisputeCourt.ScoreProof memory proof)
    {
        proof.receipts = abi.encodePacked(receipt(jobId, 0, 1, UNITS), receipt(jobId, 0, 2, UNITS));
        proof.salt = keccak256("salt");
        for (uint8 i = 0; i < 2; ++i) {
            bytes memory own = abi.encodePacked(scores[i], scores[i]);
            uint8 at = i == member ? listedAt : i;
            bytes32 commitment = keccak256(abi.encodePacked(signerOf(i + 1), proof.salt, own));
            proof.commitments = bytes.concat(proof.commitments, bytes1(at), commitment);
            if (i == member) proof.scores = own;
        }
        BatchHeader memory header = batchOf(jobId, 0, 0, true);
        (bytes32 receipts, bytes32 list) = (keccak256(proof.receipts), keccak256(proof.commitments));
        bytes memory signature = Signing.attestation(market, SIGNER + 1 + member, header, receipts, list);
        proof.attestation = IDisputeCourt.SignedAttestation(header, receipts, list, signature);
    }

    function prove(uint256 caseId, IDisputeCourt.ScoreProof memory proof, bytes4 refusal) internal {
        if (refusal != 0) vm.expectPartialRevert(refusal);
        vm.prank(challenger);
        theCourt.proveGrossScore(caseId, proof);
    }

    function executedAt(uint16 finding) internal returns (uint256 caseId) {
        caseId = openQuality(9_000);
        prove(caseId, scored(0, [uint16(9_000), 9_000], 0), IDisputeCourt.WrongStage.selector);
        find(caseId, finding, finding, finding);
        finish(caseId);
    }

    /// @dev One of two scored far too high: it pays, and the other, who signed the same batch, does not.
    function test_AGrossScore_CostsItsOwnAttestorOnly() external {
        uint256 caseId = executedAt(6_000);
        vm.assertEq(bondOf(1), MIN_BOND, "nobody answers for the median");
        prove(caseId, scored(0, [uint16(9_000), 6_000], 0), 0);
        uint128 taken = MIN_BOND * 5 / 100;
        vm.assertEq(bondOf(1), MIN_BOND - taken);
        vm.assertEq(theRegistry.owedTo(challenger), BOND);
        vm.assertEq(theRegistry.owedTo(requester), (taken - BOND) / 2);
        prove(caseId, scored(0, [uint16(9_000), 6_000], 0), IDisputeCourt.AlreadyPunished.selector);
        prove(caseId, scored(1, [uint16(9_000), 6_000], 1), IDisputeCourt.NoFault.selector);
        vm.assertEq(bondOf(2), MIN_BOND);
        checkBooks();
    }

    function test_AGrossScore_TooLow_IsTheOperatorsLoss() external {
        uint256 caseId = executedAt(9_000);
        prove(caseId, scored(1, [uint16(9_000), 6_499], 1), 0);
        vm.assertEq(theRegistry.owedTo(operator), (MIN_BOND * 5 / 100 - BOND) / 2);
        prove(caseId, scored(0, [uint16(6_500), 0], 0), IDisputeCourt.NoFault.selector);
    }

    /// @dev Another member can list a commitment that names somebody else: it counts at the signer's number only.
    function test_AGrossScore_ListedByAnother_ProvesNothing() external {
        uint256 caseId = executedAt(6_000);
        bytes4 refusal = IDisputeCourt.NoFault.selector;
        prove(caseId, scored(0, [uint16(9_000), 6_000], 1), refusal);
        prove(caseId, scored(0, [uint16(9_000), 6_000], 2), refusal);
    }

    function test_AGrossScore_MustBeWhatWasSigned_OfThatReceipt() external {
        uint256 caseId = executedAt(6_000);
        bytes4 refusal = IDisputeCourt.NoFault.selector;
        IDisputeCourt.ScoreProof memory proof = scored(0, [uint16(9_000), 6_000], 0);
        proof.position = 1;
        prove(caseId, proof, refusal);
        proof.position = 0;
        proof.scores[0] = 0x00;
        prove(caseId, proof, refusal);
        proof = scored(0, [uint16(9_000), 6_000], 0);
        proof.attestation.header.batch += 1;
        prove(caseId, proof, IDisputeCourt.NotSignedByMember.selector);
        proof.attestation.header.round += 1;
        prove(caseId, proof, refusal);
        proof = scored(0, [uint16(9_000), 6_000], 0);
        proof.receipts[1] = 0x01;
        prove(caseId, proof, refusal);
        proof = scored(0, [uint16(9_000), 6_000], 0);
        proof.commitments[33] = 0x02;
        prove(caseId, proof, refusal);
    }

    function test_AGrossScore_NeedsAFinding() external {
        uint256 caseId = openQuality(9_000);
        draw(caseId);
        later(COMMIT);
        theCourt.decide(caseId);
        finish(caseId);
        prove(caseId, scored(0, [uint16(0), 0], 0), IDisputeCourt.NoFault.selector);
    }

    function test_AReplacedCourt_ProvesNothing() external {
        vm.prank(timelock);
        market.setPeriphery(address(theRegistry), court);
        bytes4 refusal = IDisputeCourt.CourtReplaced.selector;
        prove(signedReceipt(0, 1, UNITS, ONE), signedReceipt(0, 1, UNITS, OTHER), refusal);
        prove(attested(SIGNER + 1, 0, 2, ONE, ONE), attested(SIGNER + 1, 0, 2, OTHER, ONE), refusal);
    }
}
