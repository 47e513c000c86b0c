// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarketAccounts} from "../interfaces/IComputeMarketAccounts.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Terms, periphery, attestor sets and pauses
/// @notice All that can be changed about the market: its terms within bounds, and which registry and court it
/// listens to, by the timelock that owns it; who attests, by the registry; pauses that end by themselves, by the
/// guardian.
abstract contract Governance is MarketBase, IComputeMarketAccounts {
    /// @dev Longest pause, and shortest time between two. Longer than the grace, so that no more than one pause
    /// falls into it.
    uint64 private constant PAUSE_LIMIT = 3 days;
    address private immutable _deployer;

    modifier onlyCourt() {
        if (msg.sender != _court) revert Unauthorized(msg.sender);
        _;
    }

    constructor(address deployer) {
        _deployer = deployer;
    }

    /*//////////////////////////////////////////////////////////////
                               TIMELOCK
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function connect(address registry_, address court_, address coordinator_) external {
        if (msg.sender != _deployer) revert Unauthorized(msg.sender);
        if (_registry != address(0)) revert AlreadyConnected();
        _setPeriphery(registry_, court_);
        _setCoordinator(coordinator_);
    }

    /// @inheritdoc IComputeMarketAccounts
    function setPeriphery(address registry_, address court_) external onlyOwner {
        _setPeriphery(registry_, court_);
    }

    /// @inheritdoc IComputeMarketAccounts
    function setCoordinator(address coordinator_) external onlyOwner {
        _setCoordinator(coordinator_);
    }

    /// @inheritdoc IComputeMarketAccounts
    function setTerms(Terms calldata terms_) external onlyOwner {
        _setTerms(terms_);
    }

    /// @inheritdoc IComputeMarketAccounts
    function setGuardian(address guardian_) external onlyOwner {
        _setGuardian(guardian_);
    }

    /*//////////////////////////////////////////////////////////////
                               REGISTRY
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function beginEpoch(address[] calldata members, uint8 quorum) external returns (uint32 epoch) {
        if (msg.sender != _registry) revert Unauthorized(msg.sender);
        if (
            members.length == 0 || members.length > MAX_ATTESTORS || quorum > members.length
                || 2 * uint256(quorum) <= members.length
        ) {
            revert InvalidQuorum(members.length, quorum, MAX_ATTESTORS);
        }
        if (_epoch != 0) _epochs[_epoch].endedAt = uint64(block.timestamp);
        epoch = ++_epoch;
        Epoch storage set = _epochs[epoch];
        set.quorum = quorum;
        set.size = uint8(members.length);
        for (uint256 i = 0; i < members.length; ++i) {
            _requireNonZero(members[i]);
            for (uint256 j = 0; j < i; ++j) {
                if (members[i] == members[j]) revert DuplicateAttestor(members[i]);
            }
            set.members[i] = members[i];
        }
        emit EpochBegun(epoch, members, quorum);
    }

    /*//////////////////////////////////////////////////////////////
                               GUARDIAN
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function pause(bool newJobs, bool settlement) external {
        if (msg.sender != _guardian) revert Unauthorized(msg.sender);
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

    /// @inheritdoc IComputeMarketAccounts
    function unpause() external {
        if (msg.sender != _guardian && msg.sender != owner()) revert Unauthorized(msg.sender);
        uint64 time = uint64(block.timestamp);
        _pauses.newJobsUntil = uint64(Math.min(_pauses.newJobsUntil, time));
        _pauses.settlementUntil = uint64(Math.min(_pauses.settlementUntil, time));
        emit Unpaused();
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _requireRested(uint64 until) private view {
        if (until != 0) _requireReached(until + PAUSE_LIMIT);
    }

    function _setPeriphery(address registry_, address court_) private {
        _requireNonZero(registry_);
        _requireNonZero(court_);
        _registry = registry_;
        _court = court_;
        emit PeripheryChanged(registry_, court_);
    }

    function _setCoordinator(address coordinator_) private {
        _requireNonZero(coordinator_);
        emit CoordinatorChanged(_coordinator, coordinator_);
        _coordinator = coordinator_;
    }
}
