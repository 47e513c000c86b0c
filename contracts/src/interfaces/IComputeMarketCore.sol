// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketErrors} from "./IComputeMarketErrors.sol";
import {IComputeMarketEvents} from "./IComputeMarketEvents.sol";
import {IComputeMarketTypes} from "./IComputeMarketTypes.sol";

/// @title Compute market: jobs and settlement
/// @notice What the market's own code does: escrow in, receipts to credit, the rest of the escrow out.
/// @dev See {IComputeMarket}.
interface IComputeMarketCore is IComputeMarketTypes, IComputeMarketEvents, IComputeMarketErrors {
    /*//////////////////////////////////////////////////////////////
                                 JOBS
    //////////////////////////////////////////////////////////////*/

    /// @notice Posts a job of the caller and pulls its escrow.
    /// @param spec SHA-256 of the canonical specification.
    /// @param escrow Amount pulled from the caller; more can follow.
    /// @param maxRate Highest rate that a bid may ask, base units per unit of work.
    /// @return jobId Id of the job; ids start at 1.
    function createJob(bytes32 spec, uint128 escrow, uint96 maxRate) external returns (uint256 jobId);

    /// @notice Posts a job of the payer. The authorization's nonce is
    /// keccak256(abi.encode("createJob", spec, escrow, maxRate, salt)).
    function createJobWithAuthorization(
        bytes32 spec,
        uint128 escrow,
        uint96 maxRate,
        Authorization calldata authorization
    ) external returns (uint256 jobId);

    /// @notice Adds `amount` of the caller's to a job's escrow. What is left at the end goes to the requester.
    function fundJob(uint256 jobId, uint128 amount) external;

    /// @notice Adds `amount` of the payer's to a job's escrow. The authorization's nonce is
    /// keccak256(abi.encode("fundJob", jobId, amount, salt)).
    function fundJobWithAuthorization(uint256 jobId, uint128 amount, Authorization calldata authorization)
        external;

    /// @notice Gives the bidding nodes their seats in a job. Anyone may bring signed bids with the consent to them;
    /// one bid that is not good refuses all.
    /// @param signatures One for each bid, by the wallet of the node's operator (ECDSA or ERC-1271).
    /// @param maxUnits Most units of one receipt, whatever a bid offers; not 0.
    /// @param consent Signature of Seating(jobId, maxUnits, bids) by the market's coordinator or the job's requester
    /// (ECDSA or ERC-1271), `bids` being keccak256 of the bids' EIP-712 struct hashes, one after the other. Empty if
    /// the caller is one of the two.
    function takeBids(
        uint256 jobId,
        Bid[] calldata bids,
        bytes[] calldata signatures,
        uint48 maxUnits,
        bytes calldata consent
    ) external;

    /// @notice Ends a job of which all is settled, and refunds the rest at once.
    /// @param rounds Settled rounds; must equal the job's.
    /// @param spent Amount credited; must equal the job's.
    /// @param epoch Epoch of the attestor set that signs.
    /// @param attestations A quorum's signatures of JobClosure(jobId, rounds, spent, epoch), by increasing member;
    /// `salt` and `scores` are empty.
    function closeJob(
        uint256 jobId,
        uint64 rounds,
        uint128 spent,
        uint32 epoch,
        Attestation[] calldata attestations
    ) external;

    /// @notice Gives notice: after `exitNotice` the requester may leave, whatever attestors say. Until it does,
    /// rounds settle as before; bids and deposits are refused. No round should be opened after notice. A pause of
    /// settlement does not count as notice.
    function requestExit(uint256 jobId) external;

    /// @notice Ends the caller's job after its notice, and refunds the rest.
    function exitJob(uint256 jobId) external;

    /// @notice Pulls nothing, but uses a permit (ERC-2612) of the caller for the market, to be followed by a
    /// deposit in the same `multicall`. A permit that was used already is passed over.
    function permit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Pays the caller what the market owes it besides credit and stake: restitution for closed jobs, and
    /// repaid costs of disputes.
    function collect() external;

    /*//////////////////////////////////////////////////////////////
                              SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @notice Records one signed receipt as it arrives, before anybody judged it: it is on chain, its most is
    /// reserved in the escrow, and if the round's batches leave it out, it can be claimed. Anyone may send it; in
    /// per-receipt mode the coordinator does so for every contribution.
    /// @dev One record for each seat at a time. Refused for a round that the receipt's node was paid for.
    /// @param round The job's current round, or one of the next eight.
    /// @param base Hash of the checkpoint that the round started from.
    /// @param receipt One packed receipt, as in `settleRound`, of at least one unit.
    function submitContribution(uint256 jobId, uint64 round, bytes32 base, bytes calldata receipt) external;

    /// @notice Frees the reservation of a record whose round was settled without it, once the time to claim it,
    /// `challengeWindow` after the settlement, is over; of a record that a dispute holds, `disputeTime` later. Anyone
    /// may.
    function lapseRecord(uint256 jobId, uint32 nodeId) external;

    /// @notice Pays a batch of receipts of a round, whole or not at all. Anyone may send it.
    /// @dev Each receipt is 109 bytes, big endian: nodeId uint32, units uint64, artifact bytes32, and the hot
    /// key's signature r bytes32, s bytes32 (lower half), v uint8 (27 or 28) of
    /// Receipt(jobId, round, nodeId, units, base, artifact). A round in which nothing was accepted has none.
    /// Quality is the lower median of the opened attestors' scores;
    /// amount = units * rate * quality / 10,000, rounded down.
    /// @param header What the attestors sign, but for the hashes.
    /// @param receipts Packed receipts, by strictly increasing node id within the round, across its batches.
    /// @param attestations By increasing member; at least the epoch's quorum of them opened.
    function settleRound(
        BatchHeader calldata header,
        bytes calldata receipts,
        Attestation[] calldata attestations
    ) external;

    /// @notice The requester makes a settled round final at once: its credit is free, its quality can no longer be
    /// disputed. The caller is the requester, or brings its signature of Acceptance(jobId, round, digest), `digest`
    /// being the round's, right-padded to 32 bytes.
    function acceptRound(uint256 jobId, uint64 round, bytes calldata signature) external;

    /*//////////////////////////////////////////////////////////////
                                 VIEWS
    //////////////////////////////////////////////////////////////*/

    function getJob(uint256 jobId) external view returns (Job memory);

    /// @notice Jobs ever posted: the highest job id.
    function jobCount() external view returns (uint256);

    /// @notice All zero if the node has no seat in the job.
    function getSeat(uint256 jobId, uint32 nodeId) external view returns (Seat memory);

    /// @notice All zero if nothing of the round is settled.
    function getRound(uint256 jobId, uint64 round) external view returns (RoundRecord memory);

    /// @notice What a receipt would be paid, by the rule that settlement uses.
    function calculateRewards(uint256 jobId, uint32 nodeId, uint64 units, uint16 quality)
        external
        view
        returns (uint256 amount);
}
