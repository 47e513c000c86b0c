// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {CaseBook} from "./CaseBook.sol";
import {Evidence} from "./Evidence.sol";

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
        Evidence.Exhibit memory shown = EVIDENCE.receiptFault(one, other);
        caseId = _punishOnce(shown);
        emit ReceiptFaultProven(caseId, shown.nodeId, shown.jobId, shown.round);
        _penalizeNode(caseId, 0, market.terms().minStake, _terms.bond);
    }

    /// @inheritdoc IDisputeCourt
    function proveAttestationFault(SignedAttestation calldata one, SignedAttestation calldata other)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        Evidence.Exhibit memory shown = EVIDENCE.attestationFault(one, other);
        caseId = _punishOnce(shown);
        emit AttestorFaultProven(caseId, shown.attestorId, shown.jobId, shown.round);
        _slashShare(shown.attestorId, caseId, EQUIVOCATION_SHARE, shown.requester, _terms.bond);
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

    function _punishOnce(Evidence.Exhibit memory shown) private returns (uint256 caseId) {
        _requireSeated();
        if (_punished[shown.fault]) revert AlreadyPunished(shown.fault);
        _punished[shown.fault] = true;
        Case storage dispute;
        (caseId, dispute) = _newCase(Kind.Fault, shown);
        dispute.stage = Stage.Executed;
        dispute.found = true;
    }
}
