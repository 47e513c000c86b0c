// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IComputeMarketCore} from "../interfaces/IComputeMarketCore.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {PackedReceipts} from "../libraries/PackedReceipts.sol";
import {PackedScores} from "../libraries/PackedScores.sol";
import {RoundProofs} from "../libraries/RoundProofs.sol";
import {JobBook} from "./JobBook.sol";

/// @title Settlement
/// @notice Receipts become credit: recorded one by one as they arrive, and paid by the batch once attestors have
/// judged them.
abstract contract Settlement is JobBook {
    using SafeCast for uint256;
    using PackedReceipts for bytes;

    /// @dev A batch on its way through.
    struct Batch {
        uint256 jobId;
        uint64 round;
        bytes32 base;
        uint32 lastNode;
        uint64 graceStart;
        uint128 available;
        uint128 total;
        uint128 released;
        uint32 records;
        uint256 opened;
        bytes[] openings;
        bytes qualities;
    }

    /// @dev How far ahead of settlement receipts can be recorded: rounds overlap, but a node must not be able to
    /// reserve escrow for a round that never comes.
    uint64 private constant ROUNDS_AHEAD = 64;

    /*//////////////////////////////////////////////////////////////
                               RECORDS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketCore
    function submitContribution(uint256 jobId, uint64 round, bytes32 base, bytes calldata receipt) external {
        _requireSettlement();
        if (receipt.length != PackedReceipts.SIZE) revert InvalidReceiptsLength(receipt.length);
        Job storage job = _openJob(jobId);
        uint64 exitAt = _exitAvailableAt(jobId, job);
        if (exitAt != 0 && block.timestamp >= exitAt) revert JobIsExiting(jobId, exitAt);
        if (round < job.round || round > job.round + ROUNDS_AHEAD) {
            revert RoundOutOfReach(jobId, round, job.round, job.round + ROUNDS_AHEAD);
        }
        PackedReceipts.PackedReceipt memory item = receipt.read(0);
        if (round == job.round && item.nodeId <= job.lastNode) revert AlreadyPaid(jobId, round, item.nodeId);
        Seat storage seat = _seat(jobId, item.nodeId);
        if (seat.recordedRound != 0) revert RecordExists(jobId, seat.recordedRound - 1, item.nodeId);
        _requireCapacity(seat, item.nodeId, item.units);
        _requireReceiptSignature(jobId, round, base, item, _graceStart());

        uint128 most = _reservation(item.units, seat.rate);
        uint128 available = job.escrow - job.spent - job.reserved;
        if (most > available) revert InsufficientEscrow(jobId, most, available);
        job.reserved += most;
        job.records += 1;
        // Both fit: the capacity holds the units, and rounds are reached one by one.
        seat.recordedUnits = uint48(item.units);
        seat.recordedRound = uint32(round + 1);
        emit ContributionRecorded(jobId, round, item.nodeId, item.units, base, item.artifact);
    }

    /// @inheritdoc IComputeMarketCore
    function lapseRecord(uint256 jobId, uint32 nodeId) external {
        Job storage job = _openJob(jobId);
        Seat storage seat = _seat(jobId, nodeId);
        uint64 round = _recordedRound(jobId, seat, nodeId);
        if (seat.claimed) revert RecordIsHeld(jobId, round, nodeId);
        if (round < job.round) {
            _requireReached(_rounds[jobId][round].settledAt + _terms.challengeWindow);
        } else {
            // Nobody settled the round. Once the requester's notice is over, that must not keep it.
            uint64 exitAt = _exitAvailableAt(jobId, job);
            if (exitAt == 0) revert RoundNotSettled(jobId, round);
            _requireReached(exitAt);
        }
        _endRecord(job, seat);
        emit RecordLapsed(jobId, round, nodeId);
    }

    /*//////////////////////////////////////////////////////////////
                               BATCHES
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketCore
    function settleRound(
        BatchHeader calldata header,
        bytes calldata receipts,
        Attestation[] calldata attestations
    ) external {
        _requireSettlement();
        Job storage job = _openJob(header.jobId);
        if (header.round != job.round || header.batch != job.batch) {
            revert UnexpectedBatch(header.jobId, header.round, header.batch, job.round, job.batch);
        }
        if (receipts.length % PackedReceipts.SIZE != 0) revert InvalidReceiptsLength(receipts.length);
        uint256 count = receipts.length / PackedReceipts.SIZE;

        Batch memory batch;
        uint16 attestors;
        (batch.openings, batch.opened, attestors) = _requireAttested(header, receipts, count, attestations);
        batch.jobId = header.jobId;
        batch.round = header.round;
        batch.base = header.base;
        batch.lastNode = job.lastNode;
        batch.graceStart = _graceStart();
        batch.available = job.escrow - job.spent - job.reserved;
        batch.qualities = new bytes(2 * count);
        for (uint256 i = 0; i < count; ++i) {
            _settleReceipt(batch, receipts.read(i), i);
        }

        job.spent += batch.total;
        if (batch.records != 0) {
            job.reserved -= batch.released;
            job.records -= batch.records;
        }
        _holdings.escrow -= batch.total;
        _holdings.credit += batch.total;
        _advance(job, header, batch.lastNode);
        _keep(header, keccak256(receipts), keccak256(batch.qualities), attestors);
        emit RoundSettled(
            header.jobId,
            header.round,
            header.batch,
            header.last,
            header.base,
            // Fits: calldata holds fewer than 2^32 receipts.
            uint32(count),
            batch.total,
            header.evidence,
            header.epoch,
            attestors
        );
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _settleReceipt(Batch memory batch, PackedReceipts.PackedReceipt memory receipt, uint256 index)
        private
    {
        uint32 nodeId = receipt.nodeId;
        if (nodeId <= batch.lastNode) {
            revert NodesOutOfOrder(batch.jobId, batch.round, batch.lastNode, nodeId);
        }
        batch.lastNode = nodeId;
        Seat storage seat = _seat(batch.jobId, nodeId);
        _requireCapacity(seat, nodeId, receipt.units);
        _requireReceiptSignature(batch.jobId, batch.round, batch.base, receipt, batch.graceStart);
        if (seat.recordedRound == batch.round + 1) _payRecord(batch, seat);

        (uint256 quality, uint256 highest) = PackedScores.median(batch.openings, batch.opened, index);
        // Fits: two bytes.
        if (highest > ONE) revert QualityAboveMax(nodeId, uint16(highest));
        PackedScores.write(batch.qualities, index, quality);
        uint256 owed = _reward(seat, receipt.units, quality);
        if (owed > batch.available) revert InsufficientEscrow(batch.jobId, owed, batch.available);
        // Fits: at most the available.
        uint128 amount = uint128(owed);
        batch.available -= amount;
        batch.total += amount;

        _count(nodeId, amount, receipt.units, quality);
        emit ContributionSettled(
            batch.jobId, batch.round, nodeId, receipt.units, uint16(quality), amount, receipt.artifact
        );
    }

    /// @dev A full counter stays full rather than block a payment. A credit that would not fit 96 bits (8e22
    /// dollars, with 6 decimals) reverts.
    function _count(uint32 nodeId, uint128 amount, uint64 units, uint256 quality) private {
        NodeState storage node = _nodes[nodeId];
        node.credit = (uint256(node.credit) + amount).toUint96();
        if (node.units <= type(uint64).max - units) node.units += units;
        else node.units = type(uint64).max;
        if (node.qualitySum <= type(uint64).max - quality) node.qualitySum += uint64(quality);
        if (node.rounds != type(uint32).max) node.rounds += 1;
    }

    /// @dev The batch pays a receipt for which escrow was reserved.
    function _payRecord(Batch memory batch, Seat storage seat) private {
        uint128 reserved = _reservation(seat.recordedUnits, seat.rate);
        batch.released += reserved;
        batch.available += reserved;
        batch.records += 1;
        seat.recordedUnits = 0;
        seat.recordedRound = 0;
    }

    function _advance(Job storage job, BatchHeader calldata header, uint32 lastNode) private {
        if (header.last) {
            job.round = header.round + 1;
            job.batch = 0;
            job.lastNode = 0;
        } else {
            job.batch = header.batch + 1;
            job.lastNode = lastNode;
        }
    }

    /// @dev Chains the batch onto the round's digest.
    function _keep(BatchHeader calldata header, bytes32 receipts, bytes32 qualities, uint16 attestors)
        private
    {
        RoundRecord storage record = _rounds[header.jobId][header.round];
        record.digest = RoundProofs.extend(
            record.digest,
            SettledBatch({
                base: header.base,
                evidence: header.evidence,
                receipts: receipts,
                qualities: qualities,
                epoch: header.epoch,
                attestors: attestors
            })
        );
        if (header.last) record.settledAt = uint40(block.timestamp);
    }

    function _requireReceiptSignature(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        PackedReceipts.PackedReceipt memory receipt,
        uint64 graceStart
    ) private view {
        bytes32 digest = _hashTypedDataV4(
            MessageHashes.receipt(jobId, round, receipt.nodeId, receipt.units, base, receipt.artifact)
        );
        _requireSignedByNode(receipt.nodeId, digest, receipt.v, receipt.r, receipt.s, graceStart);
    }

    /// @dev Checks that the node's key signed the digest, or a key that was the node's after `graceStart`.
    function _requireSignedByNode(
        uint32 nodeId,
        bytes32 digest,
        uint8 v,
        bytes32 r,
        bytes32 s,
        uint64 graceStart
    ) private view {
        // Zero if the signature is not valid, which no node's hot key is. Refuses a high `s` (EIP-2).
        (address signer,,) = ECDSA.tryRecover(digest, v, r, s);
        NodeState storage node = _nodes[nodeId];
        uint64 endedAt = node.expiresAt;
        if (signer != node.hotKey) {
            endedAt = _keyEndedAt[nodeId][signer];
            if (endedAt == 0) revert InvalidReceiptSignature(nodeId, signer);
        }
        if (endedAt <= graceStart) revert HotKeyExpired(nodeId, endedAt);
    }

    function _requireSettlement() private view {
        if (block.timestamp < _pauses.settlementUntil) revert IsPaused(_pauses.settlementUntil);
    }
}
