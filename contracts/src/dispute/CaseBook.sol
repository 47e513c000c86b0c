// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {IAttestorRegistry} from "../interfaces/IAttestorRegistry.sol";
import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {Evidence} from "./Evidence.sol";
import {PullPayments} from "./PullPayments.sol";

/// @title What all parts of the court share
/// @notice The terms, the cases and their bonds.
abstract contract CaseBook is IDisputeCourt, PullPayments, EIP712 {
    uint256 private constant MAX_COMMITTEE = 15;
    uint64 private constant MAX_DURATION = 365 days;
    uint16 internal constant QUALITY_ONE = 10_000;

    /// @inheritdoc IDisputeCourt
    IComputeMarket public immutable market;
    /// @inheritdoc IDisputeCourt
    IAttestorRegistry public immutable registry;
    /// @inheritdoc IDisputeCourt
    address public immutable arbiter;

    /// @dev Reads what callers show, and checks it.
    Evidence internal immutable EVIDENCE;

    CourtTerms internal _terms;
    mapping(uint256 caseId => Case) internal _cases;

    /// @inheritdoc IDisputeCourt
    uint256 public caseCount;
    /// @inheritdoc IDisputeCourt
    uint128 public bonds;

    constructor(
        IComputeMarket market_,
        IAttestorRegistry registry_,
        address arbiter_,
        CourtTerms memory terms_
    ) PullPayments(market_.token()) EIP712("HyperGPU Court", "1") {
        if (address(registry_) == address(0) || arbiter_ == address(0)) {
            revert ZeroAddress();
        }
        market = market_;
        registry = registry_;
        arbiter = arbiter_;
        EVIDENCE = new Evidence(market_, registry_);
        _setTerms(terms_, market_.terms().disputeTime);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function getCase(uint256 caseId) external view returns (Case memory) {
        return _cases[caseId];
    }

    /// @inheritdoc IDisputeCourt
    function terms() external view returns (CourtTerms memory) {
        return _terms;
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _newCase(Kind kind, Evidence.Exhibit memory shown)
        internal
        returns (uint256 caseId, Case storage dispute)
    {
        caseId = ++caseCount;
        dispute = _cases[caseId];
        dispute.kind = kind;
        dispute.round = shown.round;
        dispute.nodeId = shown.nodeId;
        dispute.paid = shown.paid;
        dispute.finding = shown.paid;
        dispute.epoch = shown.epoch;
        dispute.attestors = shown.attestors;
        dispute.jobId = shown.jobId;
        dispute.challenger = msg.sender;
        dispute.units = shown.units;
        dispute.operator = shown.operator;
        dispute.requester = shown.requester;
        dispute.artifact = shown.artifact;
        dispute.evidence = shown.evidence;
    }

    /// @dev Takes a bond of the caller, until the case is executed.
    function _pullBond(uint128 bond) internal {
        bonds += bond;
        _pull(bond);
    }

    /// @dev A bond is no longer held for a case, but owed.
    function _releaseBond(address to, uint128 amount) internal {
        bonds -= amount;
        _owe(to, amount);
    }

    /// @dev Whether the market and the registry still listen to this court.
    function _isSeated() internal view returns (bool) {
        return market.court() == address(this);
    }

    function _requireSeated() internal view {
        if (!_isSeated()) revert CourtReplaced();
    }

    /// @dev A case at this stage, whose time is not over.
    function _caseIn(uint256 caseId, Stage stage) internal view returns (Case storage dispute) {
        dispute = _cases[caseId];
        if (dispute.stage != stage) revert WrongStage(caseId, dispute.stage);
        if (block.timestamp >= dispute.deadline) revert TooLate(dispute.deadline);
    }

    function _requireOver(uint64 deadline) internal view {
        if (block.timestamp < deadline) revert TooEarly(deadline);
    }

    function _differ(uint16 a, uint16 b) internal view returns (bool) {
        return _distance(a, b) > _terms.tolerance;
    }

    function _distance(uint16 a, uint16 b) internal pure returns (uint16) {
        return a > b ? a - b : b - a;
    }

    function _requireQuality(uint16 quality) internal pure {
        if (quality > QUALITY_ONE) revert QualityAboveMax(quality);
    }

    function _setTerms(CourtTerms memory terms_, uint64 disputeTime) private {
        _requireWithin(terms_.bond, 1, type(uint128).max);
        _requireWithin(terms_.answerTime, 2, MAX_DURATION);
        _requireWithin(terms_.commitTime, 1, MAX_DURATION);
        _requireWithin(terms_.revealTime, 1, MAX_DURATION);
        _requireWithin(terms_.appealTime, 1, MAX_DURATION);
        _requireWithin(terms_.rulingTime, 1, MAX_DURATION);
        _requireWithin(
            terms_.answerTime + 2 * terms_.commitTime + terms_.revealTime + terms_.appealTime
                + terms_.rulingTime,
            1,
            disputeTime
        );
        _requireWithin(terms_.committeeSize, 1, MAX_COMMITTEE);
        if (terms_.committeeSize % 2 == 0) {
            revert TermOutOfBounds(terms_.committeeSize, terms_.committeeSize - 1, terms_.committeeSize + 1);
        }
        _requireWithin(terms_.tolerance, 0, QUALITY_ONE - 1);
        _terms = terms_;
    }

    function _requireWithin(uint256 value, uint256 min, uint256 max) private pure {
        if (value < min || value > max) revert TermOutOfBounds(value, min, max);
    }
}
