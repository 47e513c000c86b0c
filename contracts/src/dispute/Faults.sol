// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {CaseBook} from "./CaseBook.sol";

/// @title Faults that signatures prove
/// @notice Two signed messages that exclude each other are their own judge: no bond, no committee, no appeal.
abstract contract Faults is CaseBook {
    /// @dev Of an attestor's bond, for two attestations of one batch; basis points.
    uint256 private constant EQUIVOCATION_SHARE = 3_000;

    /// @dev By what was signed twice, and by whom.
    mapping(bytes32 fault => bool) private _punished;

    /// @inheritdoc IDisputeCourt
    function proveReceiptFault(SignedReceipt calldata one, SignedReceipt calldata other)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        _requireSeated();
        (uint256 jobId, uint64 round, uint32 nodeId) = (one.jobId, one.round, one.nodeId);
        if (jobId != other.jobId || round != other.round || nodeId != other.nodeId) revert NoFault();
        (bytes32 hashOne, bytes32 hashOther) = (_hashReceipt(one), _hashReceipt(other));
        if (hashOne == hashOther) revert NoFault();
        address signer = _recoverMarket(hashOne, one.signature);
        _requireNodeKey(nodeId, signer);
        address otherSigner = _recoverMarket(hashOther, other.signature);
        if (otherSigner != signer) revert NotSignedByNode(nodeId, otherSigner);
        if (market.getSeat(jobId, nodeId).capacity == 0) revert NotSeated(jobId, nodeId);

        caseId = _punishOnce(keccak256(abi.encode(nodeId, jobId, round)), jobId, round);
        _cases[caseId].nodeId = nodeId;
        emit ReceiptFaultProven(caseId, nodeId, jobId, round);
        _penalizeNode(caseId, 0, market.terms().minStake, _terms.bond);
    }

    /// @inheritdoc IDisputeCourt
    function proveAttestationFault(SignedAttestation calldata one, SignedAttestation calldata other)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        _requireSeated();
        (uint256 jobId, uint64 round, uint32 batch) = (one.header.jobId, one.header.round, one.header.batch);
        if (jobId != other.header.jobId || round != other.header.round || batch != other.header.batch) {
            revert NoFault();
        }
        (bytes32 hashOne, bytes32 hashOther) = (_hashAttestation(one), _hashAttestation(other));
        if (hashOne == hashOther) revert NoFault();
        address signer = _recoverMarket(hashOne, one.signature);
        uint32 attestorId = _requireMember(one.header.epoch, signer);
        address otherSigner = _recoverMarket(hashOther, other.signature);
        if (otherSigner != signer) revert NotSignedByMember(other.header.epoch, otherSigner);
        _requireMember(other.header.epoch, signer);

        caseId = _punishOnce(keccak256(abi.encode(attestorId, jobId, round, batch)), jobId, round);
        emit AttestorFaultProven(caseId, attestorId, jobId, round);
        _slashShare(attestorId, caseId, EQUIVOCATION_SHARE, market.getJob(jobId).requester, _terms.bond);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev Takes `share` basis points of an attestor's bond; of them at most a quarter repays the challenger's
    /// `costs`.
    /// @return refund What it got of them.
    function _slashShare(uint32 attestorId, uint256 caseId, uint256 share, address injured, uint128 costs)
        internal
        returns (uint128 refund)
    {
        // Fits: a share of 128 bits.
        uint128 amount = uint128(registry.getAttestor(attestorId).bond * share / QUALITY_ONE);
        refund = _refund(amount, costs);
        registry.slash(attestorId, caseId, amount, injured, _cases[caseId].challenger, refund);
    }

    /// @dev Of the penalty, at most a quarter repays the challenger's `costs`.
    /// @return refund What it got of them.
    function _penalizeNode(uint256 caseId, uint128 restitution, uint128 penalty, uint128 costs)
        internal
        returns (uint128 refund)
    {
        Case storage dispute = _cases[caseId];
        refund = _refund(penalty, costs);
        market.penalize(
            Penalty({
                caseId: caseId,
                jobId: dispute.jobId,
                nodeId: dispute.nodeId,
                restitution: restitution,
                penalty: penalty,
                challenger: dispute.challenger,
                costs: refund
            })
        );
    }

    /// @dev A challenger's costs, as far as a quarter of the fine repays them.
    function _refund(uint128 fine, uint128 costs) private pure returns (uint128) {
        return uint128(Math.min(fine / 4, costs));
    }

    function _punishOnce(bytes32 fault, uint256 jobId, uint64 round) private returns (uint256 caseId) {
        if (_punished[fault]) revert AlreadyPunished(fault);
        _punished[fault] = true;
        caseId = ++caseCount;
        Case storage dispute = _cases[caseId];
        dispute.stage = Stage.Executed;
        dispute.found = true;
        dispute.jobId = jobId;
        dispute.round = round;
        dispute.challenger = msg.sender;
    }

    function _requireMember(uint32 epoch, address signer) private view returns (uint32 attestorId) {
        attestorId = registry.attestorOf(signer);
        if (attestorId == 0 || !_contains(_membersOf(epoch, type(uint16).max), attestorId)) {
            revert NotSignedByMember(epoch, signer);
        }
    }

    function _hashReceipt(SignedReceipt calldata receipt) internal pure returns (bytes32) {
        return MessageHashes.receipt(
            receipt.jobId, receipt.round, receipt.nodeId, receipt.units, receipt.base, receipt.artifact
        );
    }

    function _hashAttestation(SignedAttestation calldata attestation) private pure returns (bytes32) {
        return
            MessageHashes.roundAttestation(attestation.header, attestation.receipts, attestation.commitments);
    }
}
