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
        uint256 indexed jobId,
        address indexed requester,
        bytes32 indexed spec,
        uint128 escrow,
        uint128 maxRate
    );

    /// @notice Emitted when a job gets more money; `escrow` is the new amount ever deposited.
    event JobFunded(uint256 indexed jobId, address indexed from, uint128 amount, uint128 escrow);

    /// @notice Emitted when a node takes a seat in a job.
    event BidTaken(uint256 indexed jobId, uint32 indexed nodeId, uint128 rate, uint64 capacity);

    /// @notice Emitted when all bids of a node with a nonce below `minNonce` are cancelled.
    event BidsCancelled(uint32 indexed nodeId, uint64 minNonce);

    /// @notice Emitted for each receipt: `amount` was moved from the job's escrow to the node's credit.
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
    /// who missed an event can tell.
    event RoundSettled(
        uint256 indexed jobId,
        uint64 indexed round,
        uint32 batch,
        bool last,
        bytes32 base,
        uint32 receipts,
        uint128 total,
        bytes32 evidence
    );

    /// @notice Emitted when credit of a node is paid out to `to`.
    event CreditWithdrawn(uint32 indexed nodeId, address indexed to, uint128 amount);

    /// @notice Emitted when the requester gives notice. Work that is begun afterwards may go unpaid.
    event JobExitRequested(uint256 indexed jobId, uint64 availableAt);

    /// @notice Emitted when a job ends, by closure or exit, after `rounds` settled rounds.
    event JobClosed(uint256 indexed jobId, uint64 rounds, uint128 spent, uint128 refund);

    /// @notice Emitted when the set of attestors is replaced.
    event AttestorsChanged(address[] attestors, uint8 quorum);
}
