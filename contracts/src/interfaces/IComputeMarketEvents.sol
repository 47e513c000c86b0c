// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketTypes} from "./IComputeMarketTypes.sol";

/// @title Events of the compute market
interface IComputeMarketEvents {
    /// @notice Emitted when an operator adds a node.
    event NodeRegistered(
        uint32 indexed nodeId, address indexed operator, address indexed hotKey, uint64 expiresAt
    );

    /// @notice Emitted when a node is retired. Its hot key's receipts settle for `unbondingTime` more, or until
    /// the delegation expires if that is sooner.
    event NodeRetired(uint32 indexed nodeId);

    /// @notice Emitted when a node's hot key is renewed or replaced. `expiresAt` is the effective time, which
    /// for a retired node can be earlier than the one that was signed.
    event HotKeyDelegated(uint32 indexed nodeId, address indexed hotKey, uint64 expiresAt);

    /// @notice Emitted when an operator bonds more; `stake` is the new bonded amount.
    event StakeAdded(address indexed operator, uint128 amount, uint128 stake);

    /// @notice Emitted when an operator starts to unbond `amount`; all that it unbonds is available at `availableAt`.
    event UnstakeRequested(address indexed operator, uint128 amount, uint64 availableAt);

    /// @notice Emitted when an operator takes out what it unbonded.
    event Unstaked(address indexed operator, uint128 amount);

    /// @notice Emitted when a job is posted, with its first deposit.
    event JobCreated(
        uint256 indexed jobId, address indexed requester, bytes32 indexed spec, uint128 escrow, uint96 maxRate
    );

    /// @notice Emitted when a job gets more money; `escrow` is the new amount ever deposited.
    event JobFunded(uint256 indexed jobId, address indexed from, uint128 amount, uint128 escrow);

    /// @notice Emitted when a node takes a seat in a job; `capacity` is the seat's.
    event BidTaken(uint256 indexed jobId, uint32 indexed nodeId, uint128 rate, uint64 capacity);

    /// @notice Emitted when all bids of a node with a nonce below `minNonce` are cancelled.
    event BidsCancelled(uint32 indexed nodeId, uint64 minNonce);

    /// @notice Emitted when a signed receipt is recorded: `units * rate` of the escrow is reserved for it.
    event ContributionRecorded(
        uint256 indexed jobId,
        uint64 indexed round,
        uint32 indexed nodeId,
        uint64 units,
        bytes32 base,
        bytes32 artifact
    );

    /// @notice Emitted when a record that no batch paid and nobody claimed ends; its reservation is free.
    event RecordLapsed(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId);

    /// @notice Emitted when a dispute takes hold of a record.
    event RecordHeld(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId);

    /// @notice Emitted when the dispute about a record is over; its reservation is free.
    event RecordDropped(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId);

    /// @notice Emitted for each receipt: `amount` was moved from the job's escrow to the node's credit. A record
    /// of the receipt ends with it. `quality` is the median of the attestors' scores.
    event ContributionSettled(
        uint256 indexed jobId,
        uint64 indexed round,
        uint32 indexed nodeId,
        uint64 units,
        uint16 quality,
        uint128 amount,
        bytes32 artifact
    );

    /// @notice Emitted after the receipts of a batch. For one job, (round, batch) has no gaps, so that a reader
    /// who missed an event can tell. Bit `i` of `attestors` is set if member `i` of the epoch's set opened.
    event RoundSettled(
        uint256 indexed jobId,
        uint64 indexed round,
        uint32 batch,
        bool last,
        bytes32 base,
        uint32 receipts,
        uint128 total,
        bytes32 evidence,
        uint32 epoch,
        uint16 attestors
    );

    /// @notice Emitted when the requester makes a settled round final.
    event RoundAccepted(uint256 indexed jobId, uint64 indexed round);

    /// @notice Emitted when the credit of one receipt of an accepted round is freed before its window is over.
    event CreditReleased(uint32 indexed nodeId, uint256 indexed jobId, uint64 indexed round, uint128 amount);

    /// @notice Emitted when all that a node has `earned` until now starts to wait for its challenge window.
    event CreditMarked(uint32 indexed nodeId, uint128 earned, uint64 freeAt);

    /// @notice Emitted when credit of a node is paid out to `to`: once for the payee, once more for the fee.
    event CreditWithdrawn(uint32 indexed nodeId, address indexed to, uint128 amount);

    /// @notice Emitted when a dispute about a node's pay is opened: `amount` more of its credit must stay. All that is
    /// held for the node is held `until` then, unless it is freed before.
    event CreditHeld(uint32 indexed nodeId, uint128 amount, uint64 until);

    /// @notice Emitted when a dispute about a node's pay is over: `amount` less is held.
    event CreditFreed(uint32 indexed nodeId, uint128 amount);

    /// @notice Emitted when a dispute pays a node what it found it is owed: `amount` was moved from the job's
    /// escrow to the node's credit.
    event CreditAwarded(
        uint256 indexed caseId, uint256 indexed jobId, uint32 indexed nodeId, uint64 round, uint128 amount
    );

    /// @notice Emitted when a proven fault is paid for. What is taken (from the node's credit, its operator's
    /// stake, what is unbonding, the insurance pool) equals what is given: `restitution`, the harmed job's share
    /// with its half of the penalty, `toChallenger` and `toInsurance`. An open job's share lowers its `spent`, and
    /// what is above that raises its escrow; a closed job's is owed to its requester.
    event NodeSlashed(
        uint32 indexed nodeId,
        uint256 indexed caseId,
        uint256 indexed jobId,
        uint128 fromCredit,
        uint128 fromStake,
        uint128 fromUnbonding,
        uint128 fromInsurance,
        uint128 restitution,
        address challenger,
        uint128 toChallenger,
        uint128 toInsurance
    );

    /// @notice Emitted when an account takes what the market owed it besides credit and stake.
    event Collected(address indexed account, uint128 amount);

    /// @notice Emitted when the requester gives notice. Work that is begun afterwards may go unpaid.
    event JobExitRequested(uint256 indexed jobId, uint64 availableAt);

    /// @notice Emitted when a job ends, by closure or exit, after `rounds` settled rounds.
    event JobClosed(uint256 indexed jobId, uint64 rounds, uint128 spent, uint128 refund);

    /// @notice Emitted when a set of attestors takes office. `members[i]` is member `i`.
    event EpochBegun(uint32 indexed epoch, address[] members, uint8 quorum);

    /// @notice Emitted when the terms are set; at deployment `previous` is all zero.
    event TermsChanged(IComputeMarketTypes.Terms previous, IComputeMarketTypes.Terms current);

    /// @notice Emitted when attestor registry and court are named.
    event PeripheryChanged(address indexed registry, address indexed court);

    /// @notice Emitted when another account may seat nodes in every job.
    event CoordinatorChanged(address indexed previous, address indexed current);

    /// @notice Emitted when another account may pause.
    event GuardianChanged(address indexed previous, address indexed current);

    /// @notice Emitted when the guardian pauses; a time in the past means that this is not paused.
    event Paused(uint64 newJobsUntil, uint64 settlementUntil);

    /// @notice Emitted when the pauses are ended early.
    event Unpaused();
}
