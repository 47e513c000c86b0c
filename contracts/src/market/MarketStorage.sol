// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketTypes} from "../interfaces/IComputeMarketTypes.sol";

/// @title Storage of the market
/// @notice All that the market keeps, in one place: ComputeMarket and MarketAccounts both run on it, so both inherit
/// this first, and nothing else of theirs has storage but their owner.
/// @dev The storage begins at a page boundary (`layout at 0x80`). Monad prices storage by pages of 128 slots
/// (MIP-8), so what a settlement touches lies dense: 64 neighbouring nodes, or 128 seats of a job, share a page.
abstract contract MarketStorage is IComputeMarketTypes {
    uint256 internal constant MAX_NODES = 1 << 24;
    uint256 internal constant MAX_JOBS = 1 << 32;
    uint256 internal constant MAX_ROUNDS = 1 << 32;
    uint256 internal constant MAX_ATTESTORS = 16;

    /// @notice The first slot of a node, which settlement reads.
    struct NodeKey {
        address hotKey;
        uint64 expiresAt;
        uint32 faults;
    }

    /// @notice The second slot of a node, which settlement writes.
    /// @param credit Amount credited and not yet taken.
    /// @param units Saturates, as do the other counters: a full counter must not block a payment.
    struct NodeWork {
        uint96 credit;
        uint64 units;
        uint64 qualitySum;
        uint32 rounds;
    }

    /// @notice What settlement touches of a node.
    struct NodeState {
        NodeKey key;
        NodeWork work;
    }

    /// @notice The part of a node that settlement does not touch.
    /// @param previousKey The last key that was replaced.
    struct NodeProfile {
        address operator;
        uint64 retiredAt;
        address previousKey;
        uint64 bidNonce;
    }

    /// @notice What has become of a node's earnings: see {CreditBook}.
    /// @param taken Withdrawn or slashed, ever; `credit + taken` is what the node has earned.
    /// @param advance Part of `taken` that was not free yet.
    /// @param matured Earned until `maturedAt`: free.
    /// @param marked Earned until `markedAt`: free once the mark is old enough.
    /// @param releasedMarked Released by acceptance, and held in `marked` but not in `matured`.
    /// @param releasedSince Released by acceptance, and held in neither.
    /// @param markedAt 0 if no mark waits.
    /// @param nonce Of the next signed withdrawal.
    struct Account {
        uint128 taken;
        uint128 advance;
        uint128 matured;
        uint128 marked;
        uint128 releasedMarked;
        uint128 releasedSince;
        uint64 maturedAt;
        uint64 markedAt;
        uint64 nonce;
    }

    /// @notice Credit that must stay while disputes about it are open.
    /// @param amount Sum over the open disputes.
    /// @param until From then on nothing is held, whatever `amount` says.
    struct Hold {
        uint128 amount;
        uint64 until;
    }

    /// @notice A job, and behind it its rounds: the first hundred share its page.
    struct JobState {
        Job job;
        RoundRecord[MAX_ROUNDS] rounds;
    }

    /// @param endedAt When the next epoch began; 0 while this one is current.
    struct Epoch {
        uint64 endedAt;
        uint8 quorum;
        uint8 size;
        address[MAX_ATTESTORS] members;
    }

    /// @notice Both kinds of pause. The last settlement pause is [settlementSince, settlementUntil).
    /// @param settlementBefore Seconds of settlement pauses before the last one.
    struct Pauses {
        uint64 newJobsUntil;
        uint64 settlementSince;
        uint64 settlementUntil;
        uint64 settlementBefore;
    }

    /// @notice Sums over all accounts, kept in step with them.
    struct Holdings {
        uint128 escrow;
        uint128 credit;
        uint128 stake;
        uint128 owed;
        uint128 insurance;
    }

    NodeState[MAX_NODES] internal _nodes;
    Seat[MAX_NODES][MAX_JOBS] internal _seats;
    mapping(uint256 jobId => JobState) internal _jobs;
    /// @dev Seconds of settlement pauses before the requester's notice.
    mapping(uint256 jobId => uint64) internal _pausedAtNotice;
    /// @dev Receipts whose credit acceptance has released, 256 nodes to a word.
    mapping(uint256 jobId => mapping(uint64 round => mapping(uint256 word => uint256))) internal _released;

    mapping(uint32 epoch => Epoch) internal _epochs;
    Holdings internal _holdings;
    Pauses internal _pauses;
    Terms internal _terms;

    mapping(uint32 nodeId => NodeProfile) internal _profiles;
    mapping(uint32 nodeId => Account) internal _accounts;
    /// @dev When a key ceased to be the node's, by replacement or because it had expired before; 0 if never.
    mapping(uint32 nodeId => mapping(address hotKey => uint64)) internal _keyEndedAt;
    mapping(address operator => Operator) internal _operators;
    mapping(address operator => uint32[]) internal _nodesOf;
    mapping(address hotKey => uint32) internal _nodeOfKey;
    mapping(address hotKey => uint64) internal _delegationNonce;
    mapping(address account => uint128) internal _owedTo;

    uint256 internal _jobCount;
    uint32 internal _nodeCount;
    uint32 internal _epoch;
    address internal _registry;
    address internal _court;
    address internal _guardian;
    address internal _coordinator;
    /// @dev By court: what a replaced one held it can no longer take either.
    mapping(address court => mapping(uint32 nodeId => Hold)) internal _holds;
}
