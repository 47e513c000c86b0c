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
    /// @dev Of an attestor's bond, for a score of its own with a gross error; basis points.
    uint256 private constant GROSS_ERROR_SHARE = 500;

    /// @inheritdoc IDisputeCourt
    uint16 public constant grossError = 2_500;

    /// @dev By what was signed, and by whom.
    mapping(bytes32 fault => bool) private _punished;

    /// @inheritdoc IDisputeCourt
    function proveReceiptFault(SignedReceipt calldata one, SignedReceipt calldata other)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        Evidence.Exhibit memory shown = EVIDENCE.receiptFault(one, other);
        caseId = _newFault(shown);
        emit ReceiptFaultProven(caseId, shown.nodeId, shown.jobId, shown.round);
        _penalizeNode(caseId, 0, market.terms().minStake);
    }

    /// @inheritdoc IDisputeCourt
    function proveAttestationFault(SignedAttestation calldata one, SignedAttestation calldata other)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        Evidence.Exhibit memory shown = EVIDENCE.attestationFault(one, other);
        caseId = _newFault(shown);
        emit AttestorFaultProven(caseId, shown.attestorId, shown.jobId, shown.round);
        _slashShare(shown.attestorId, caseId, EQUIVOCATION_SHARE, shown.requester, msg.sender);
    }

    /// @inheritdoc IDisputeCourt
    function proveGrossScore(uint256 caseId, ScoreProof calldata proof) external nonReentrant {
        Case storage dispute = _cases[caseId];
        if (dispute.stage != Stage.Executed) revert WrongStage(caseId, dispute.stage);
        if (dispute.kind != Kind.Quality || !dispute.found) revert NoFault();
        (uint32 attestorId, uint16 score) = EVIDENCE.committedScore(dispute, proof);
        if (_distance(score, dispute.finding) <= grossError) revert NoFault();
        _punishOnce(keccak256(abi.encode("score", caseId, attestorId)));
        emit GrossScoreProven(caseId, attestorId, score);
        address injured = score > dispute.finding ? dispute.requester : dispute.operator;
        _slashShare(attestorId, caseId, GROSS_ERROR_SHARE, injured, msg.sender);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev Takes `share` basis points of an attestor's bond; of them at most a quarter, and at most a bond, repays
    /// the costs of whoever proved the fault; nobody (zero) has none.
    function _slashShare(uint32 attestorId, uint256 caseId, uint256 share, address injured, address prover)
        internal
    {
        // Fits: a share of 128 bits.
        uint128 amount = uint128(registry.getAttestor(attestorId).bond * share / QUALITY_ONE);
        uint128 costs = prover == address(0) ? 0 : _costs(amount);
        registry.slash(attestorId, caseId, amount, injured, prover, costs);
    }

    /// @dev Of the penalty, at most a quarter, and at most a bond, repays the challenger's costs.
    function _penalizeNode(uint256 caseId, uint128 restitution, uint128 penalty) internal {
        Case storage dispute = _cases[caseId];
        market.penalize(
            Penalty({
                caseId: caseId,
                jobId: dispute.jobId,
                nodeId: dispute.nodeId,
                restitution: restitution,
                penalty: penalty,
                challenger: dispute.challenger,
                costs: _costs(penalty)
            })
        );
    }

    /// @dev A challenger's costs, as far as a quarter of the fine repays them.
    function _costs(uint128 fine) private view returns (uint128) {
        return uint128(Math.min(fine / 4, _terms.bond));
    }

    function _punishOnce(bytes32 fault) private {
        _requireSeated();
        if (_punished[fault]) revert AlreadyPunished(fault);
        _punished[fault] = true;
    }

    function _newFault(Evidence.Exhibit memory shown) private returns (uint256 caseId) {
        _punishOnce(shown.fault);
        Case storage dispute;
        (caseId, dispute) = _newCase(Kind.Fault, shown);
        dispute.stage = Stage.Executed;
        dispute.found = true;
    }
}
