// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Terms, periphery and pauses
/// @notice All that people can change about the market: its terms within bounds, which registry and court it
/// listens to, both by the timelock that owns it, and pauses that end by themselves.
abstract contract Governance is MarketBase, Ownable {
    /// @dev Both kinds of pause. The last settlement pause is [settlementSince, settlementUntil).
    /// @param settlementBefore Seconds of settlement pauses before the last one.
    struct Pauses {
        uint64 newJobsUntil;
        uint64 settlementSince;
        uint64 settlementUntil;
        uint64 settlementBefore;
    }

    uint64 internal constant SETTLEMENT_GRACE = 1 days;
    /// @dev Longest pause, and shortest time between two. Longer than the grace, so that no more than one pause
    /// falls into it.
    uint64 private constant PAUSE_LIMIT = 3 days;
    uint64 private constant MIN_DURATION = 10 seconds;
    uint64 private constant MAX_DURATION = 365 days;
    uint128 private constant MAX_MIN_STAKE = type(uint96).max;
    uint16 internal constant ONE = 10_000;

    Terms internal _terms;
    Pauses private _pauses;
    address private immutable _deployer;

    /// @inheritdoc IComputeMarket
    address public registry;
    /// @inheritdoc IComputeMarket
    address public court;
    /// @inheritdoc IComputeMarket
    address public guardian;

    modifier onlyCourt() {
        if (msg.sender != court) revert Unauthorized(msg.sender);
        _;
    }

    constructor(Terms memory terms_, address timelock, address guardian_, address deployer)
        Ownable(timelock)
    {
        _setTerms(terms_);
        _setGuardian(guardian_);
        _deployer = deployer;
    }

    /*//////////////////////////////////////////////////////////////
                               TIMELOCK
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function connect(address registry_, address court_) external {
        if (msg.sender != _deployer) revert Unauthorized(msg.sender);
        if (registry != address(0)) revert AlreadyConnected();
        _setPeriphery(registry_, court_);
    }

    /// @inheritdoc IComputeMarket
    function setPeriphery(address registry_, address court_) external onlyOwner {
        _setPeriphery(registry_, court_);
    }

    /// @inheritdoc IComputeMarket
    function setTerms(Terms calldata terms_) external onlyOwner {
        _setTerms(terms_);
    }

    /// @inheritdoc IComputeMarket
    function setGuardian(address guardian_) external onlyOwner {
        _setGuardian(guardian_);
    }

    /*//////////////////////////////////////////////////////////////
                               GUARDIAN
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function pause(bool newJobs, bool settlement) external {
        if (msg.sender != guardian) revert Unauthorized(msg.sender);
        uint64 time = uint64(block.timestamp);
        Pauses memory pauses = _pauses;
        if (newJobs) {
            _requireRested(pauses.newJobsUntil);
            pauses.newJobsUntil = time + PAUSE_LIMIT;
        }
        if (settlement) {
            _requireRested(pauses.settlementUntil);
            pauses.settlementBefore += pauses.settlementUntil - pauses.settlementSince;
            pauses.settlementSince = time;
            pauses.settlementUntil = time + PAUSE_LIMIT;
        }
        _pauses = pauses;
        emit Paused(pauses.newJobsUntil, pauses.settlementUntil);
    }

    /// @inheritdoc IComputeMarket
    function unpause() external {
        if (msg.sender != guardian && msg.sender != owner()) revert Unauthorized(msg.sender);
        uint64 time = uint64(block.timestamp);
        _pauses.newJobsUntil = uint64(Math.min(_pauses.newJobsUntil, time));
        _pauses.settlementUntil = uint64(Math.min(_pauses.settlementUntil, time));
        emit Unpaused();
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function terms() external view returns (Terms memory) {
        return _terms;
    }

    /// @inheritdoc IComputeMarket
    function pausedUntil() external view returns (uint64 newJobs, uint64 settlement) {
        return (_pauses.newJobsUntil, _pauses.settlementUntil);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _requireNewJobs() internal view {
        if (block.timestamp < _pauses.newJobsUntil) revert IsPaused(_pauses.newJobsUntil);
    }

    function _requireSettlement() internal view {
        if (block.timestamp < _pauses.settlementUntil) revert IsPaused(_pauses.settlementUntil);
    }

    /// @dev Keys and attestor sets that ended after this are still good for settlement: `SETTLEMENT_GRACE` ago,
    /// not counting the time in which settlement was paused.
    function _graceStart() internal view returns (uint64) {
        Pauses memory pauses = _pauses;
        uint64 time = uint64(block.timestamp);
        uint64 sincePause = time > pauses.settlementUntil ? time - pauses.settlementUntil : 0;
        return sincePause < SETTLEMENT_GRACE
            ? pauses.settlementSince - (SETTLEMENT_GRACE - sincePause)
            : time - SETTLEMENT_GRACE;
    }

    /// @dev Seconds, until now, in which settlement was paused.
    function _pausedTime() internal view returns (uint64) {
        Pauses memory pauses = _pauses;
        uint256 end = Math.min(block.timestamp, pauses.settlementUntil);
        return pauses.settlementBefore + uint64(end) - pauses.settlementSince;
    }

    function _requireRested(uint64 until) private view {
        if (until != 0) _requireReached(until + PAUSE_LIMIT);
    }

    function _setTerms(Terms memory terms_) private {
        _requireWithin(terms_.minStake, 1, MAX_MIN_STAKE);
        _requireWithin(terms_.challengeWindow, MIN_DURATION, MAX_DURATION);
        _requireWithin(terms_.disputeTime, MIN_DURATION, MAX_DURATION);
        _requireWithin(terms_.exitNotice, terms_.challengeWindow + 1, MAX_DURATION);
        _requireWithin(terms_.unbondingTime, terms_.challengeWindow + terms_.disputeTime, MAX_DURATION);
        _requireWithin(terms_.instantShare, 0, ONE);
        emit TermsChanged(_terms, terms_);
        _terms = terms_;
    }

    function _setPeriphery(address registry_, address court_) private {
        _requireNonZero(registry_);
        _requireNonZero(court_);
        registry = registry_;
        court = court_;
        emit PeripheryChanged(registry_, court_);
    }

    function _setGuardian(address guardian_) private {
        emit GuardianChanged(guardian, guardian_);
        guardian = guardian_;
    }

    function _requireWithin(uint256 value, uint256 min, uint256 max) private pure {
        if (value < min || value > max) revert TermOutOfBounds(value, min, max);
    }
}
