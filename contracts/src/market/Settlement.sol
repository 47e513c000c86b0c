// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {IComputeMarketCore} from "../interfaces/IComputeMarketCore.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {PackedReceipts} from "../libraries/PackedReceipts.sol";
import {PackedScores} from "../libraries/PackedScores.sol";
import {RoundProofs} from "../libraries/RoundProofs.sol";
import {Slots} from "../libraries/Slots.sol";
import {JobBook} from "./JobBook.sol";

/// @title Settlement
/// @notice Receipts become credit: recorded one by one as they arrive, and paid by the batch once attestors have
/// judged them.
abstract contract Settlement is JobBook {
    /// @dev A batch on its way through. Wide types: it is memory, and narrow ones are masked at each use.
    /// @param message The receipt at hand, as its node signed it.
    /// @param available Escrow that is neither spent nor reserved for others.
    /// @param released What was reserved for receipts that the batch pays; `records` is their number.
    /// @param openings Of the attestors' scores, the first `opened` of the array.
    struct Batch {
        MessageHashes.Receipt message;
        bytes32 domain;
        uint256 graceStart;
        uint256 lastNode;
        uint256 available;
        uint256 released;
        uint256 records;
        uint256 opened;
        bytes[] openings;
        bytes qualities;
    }

    /// @dev How far ahead of settlement receipts can be recorded. Rounds that wait for their attestors overlap by a
    /// few; a node must not be able to reserve escrow for a round that is long to come.
    uint64 private constant ROUNDS_AHEAD = 8;
    /// @dev Half the order of secp256k1.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /*//////////////////////////////////////////////////////////////
                               RECORDS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketCore
    function submitContribution(uint256 jobId, uint64 round, bytes32 base, bytes calldata receipt) external {
        uint64 graceStart = _requireSettlement();
        if (receipt.length != PackedReceipts.SIZE) revert InvalidReceiptsLength(receipt.length);
        Job storage job = _openJob(jobId);
        uint64 exitAt = _exitAvailableAt(jobId, job);
        if (exitAt != 0 && block.timestamp >= exitAt) revert JobIsExiting(jobId, exitAt);
        if (round < job.round || round > job.round + ROUNDS_AHEAD) {
            revert RoundOutOfReach(jobId, round, job.round, job.round + ROUNDS_AHEAD);
        }
        PackedReceipts.PackedReceipt memory item = PackedReceipts.read(receipt, 0);
        _requirePositive(item.units);
        if (round == job.round && item.nodeId <= job.lastNode) revert AlreadyPaid(jobId, round, item.nodeId);
        Seat storage seat = _seat(jobId, item.nodeId);
        if (seat.recordedRound != 0) revert RecordExists(jobId, seat.recordedRound - 1, item.nodeId);
        _requireCapacity(seat.capacity, item.nodeId, item.units);
        MessageHashes.Receipt memory message = _message(jobId, round, base);
        (message.nodeId, message.units, message.artifact) = (item.nodeId, item.units, item.artifact);
        NodeKey storage node = _nodes[item.nodeId].key;
        uint256 keySlot;
        assembly ("memory-safe") {
            keySlot := node.slot
        }
        uint256 key = Slots.read(keySlot);
        _requireSignedByNode(_domainSeparatorV4(), message, item.v, item.r, item.s, key, graceStart);

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
        if (round < job.round) {
            // A court that is slow, or was replaced, keeps no record for ever.
            uint64 dispute = seat.claimed ? _terms.disputeTime : 0;
            _requireReached(_jobs[jobId].rounds[round].settledAt + _terms.challengeWindow + dispute);
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
        uint64 graceStart = _requireSettlement();
        Job storage job = _openJob(header.jobId);
        if (header.round != job.round || header.batch != job.batch) {
            revert UnexpectedBatch(header.jobId, header.round, header.batch, job.round, job.batch);
        }
        if (receipts.length % PackedReceipts.SIZE != 0) revert InvalidReceiptsLength(receipts.length);
        uint256 count = receipts.length / PackedReceipts.SIZE;

        Batch memory batch;
        uint16 attestors;
        bytes32 hash = keccak256(receipts);
        (batch.openings, batch.opened, attestors) = _requireAttested(header, hash, count, attestations);
        batch.message = _message(header.jobId, header.round, header.base);
        batch.domain = _domainSeparatorV4();
        batch.lastNode = job.lastNode;
        batch.graceStart = graceStart;
        batch.available = job.escrow - job.spent - job.reserved;
        batch.qualities = new bytes(2 * count);
        uint256 before = batch.available;
        _settleReceipts(batch, receipts, count);
        // Fits, as do the others below: all of it was escrow.
        uint128 total = uint128(before + batch.released - batch.available);

        job.spent += total;
        if (batch.records != 0) {
            job.reserved -= uint128(batch.released);
            job.records -= uint32(batch.records);
        }
        (uint128 escrow, uint128 credit) = (_holdings.escrow - total, _holdings.credit + total);
        (_holdings.escrow, _holdings.credit) = (escrow, credit);
        _advance(job, header, uint32(batch.lastNode));
        _keep(header, hash, keccak256(batch.qualities), attestors);
        emit RoundSettled(
            header.jobId,
            header.round,
            header.batch,
            header.last,
            header.base,
            // Fits: calldata holds fewer than 2^32 receipts.
            uint32(count),
            total,
            header.evidence,
            header.epoch,
            attestors
        );
    }

    /// @inheritdoc IComputeMarketCore
    function acceptRound(uint256 jobId, uint64 round, bytes calldata signature) external {
        address requester = _existingJob(jobId).requester;
        RoundRecord storage record = _jobs[jobId].rounds[round];
        if (record.settledAt == 0) revert RoundNotSettled(jobId, round);
        if (record.accepted) revert AlreadyAccepted(jobId, round);
        if (msg.sender != requester) {
            _requireWalletSignature(
                requester, MessageHashes.acceptance(jobId, round, record.digest), signature
            );
        }
        record.accepted = true;
        emit RoundAccepted(jobId, round);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev Of `batch`, what is left available, the last node, the released records and the qualities change.
    function _settleReceipts(Batch memory batch, bytes calldata receipts, uint256 count) private {
        MessageHashes.Receipt memory message = batch.message;
        Seat[MAX_NODES] storage seats = _seats[message.jobId];
        NodeState[MAX_NODES] storage nodes = _nodes;
        uint256 lastNode = batch.lastNode;
        for (uint256 i = 0; i < count; ++i) {
            bytes32 r;
            bytes32 s;
            uint256 v;
            (message.nodeId, message.units, message.artifact, r, s, v) = PackedReceipts.load(receipts, i);
            uint256 nodeId = message.nodeId;
            if (nodeId <= lastNode) _revertOutOfOrder(message, lastNode);
            lastNode = nodeId;
            if (nodeId >= MAX_NODES) revert UnknownNode(uint32(nodeId));
            uint256 seatSlot;
            uint256 keySlot;
            // Elements of fixed arrays: one slot for a seat, two for a node, its key and its work.
            assembly ("memory-safe") {
                seatSlot := add(seats.slot, nodeId)
                keySlot := add(nodes.slot, mul(nodeId, 2))
            }
            uint256 workSlot = keySlot + 1;
            _requireSignedByNode(batch.domain, message, uint8(v), r, s, Slots.read(keySlot), batch.graceStart);
            uint256 quality = _qualityOf(batch, i);
            uint256 amount = _payOut(batch, seatSlot, quality);
            Slots.write(workSlot, Slots.add(Slots.read(workSlot), amount, message.units, quality));
            emit ContributionSettled(
                message.jobId,
                uint64(message.round),
                uint32(nodeId),
                uint64(message.units),
                uint16(quality),
                uint128(amount),
                message.artifact
            );
        }
        batch.lastNode = lastNode;
    }

    /// @dev The median for receipt `index`.
    function _qualityOf(Batch memory batch, uint256 index) private pure returns (uint256 quality) {
        uint256 highest;
        (quality, highest) = PackedScores.median(batch.openings, batch.opened, index);
        // Fits: a score has two bytes.
        if (highest > ONE) revert QualityAboveMax(uint32(batch.message.nodeId), uint16(highest));
        PackedScores.write(batch.qualities, index, quality);
    }

    /// @dev Takes the pay of the receipt at hand from what is available, and ends its record if it has one.
    function _payOut(Batch memory batch, uint256 seatSlot, uint256 quality) private returns (uint256 amount) {
        MessageHashes.Receipt memory message = batch.message;
        uint256 seat = Slots.read(seatSlot);
        uint256 capacity = Slots.capacityOf(seat);
        if (capacity == 0) revert NotSeated(message.jobId, uint32(message.nodeId));
        if (message.units > capacity) {
            revert UnitsAboveCapacity(uint32(message.nodeId), uint64(message.units), uint64(capacity));
        }
        // Nothing overflows: units have 48 bits by now, a rate 96, a quality 14, and escrow 128.
        unchecked {
            if (Slots.recordedRoundOf(seat) == message.round + 1) {
                uint256 reserved = Slots.recordedUnitsOf(seat) * Slots.rateOf(seat);
                batch.released += reserved;
                batch.available += reserved;
                batch.records += 1;
                Slots.write(seatSlot, Slots.withoutRecord(seat));
            }
            amount = message.units * Slots.rateOf(seat) * quality / ONE;
            if (amount > batch.available) revert InsufficientEscrow(message.jobId, amount, batch.available);
            batch.available -= amount;
        }
    }

    function _revertOutOfOrder(MessageHashes.Receipt memory message, uint256 lastNode) private pure {
        revert NodesOutOfOrder(message.jobId, uint64(message.round), uint32(lastNode), uint32(message.nodeId));
    }

    function _advance(Job storage job, BatchHeader calldata header, uint32 lastNode) private {
        (uint64 round, uint32 batch) = header.last ? (header.round + 1, 0) : (header.round, header.batch + 1);
        (job.round, job.batch, job.lastNode) = (round, batch, header.last ? 0 : lastNode);
    }

    /// @dev Chains the batch onto the round's digest.
    function _keep(BatchHeader calldata header, bytes32 receipts, bytes32 qualities, uint16 attestors)
        private
    {
        RoundRecord storage record = _jobs[header.jobId].rounds[header.round];
        bytes26 digest = RoundProofs.extend(
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
        (record.digest, record.settledAt) = (digest, header.last ? uint40(block.timestamp) : 0);
    }

    function _message(uint256 jobId, uint64 round, bytes32 base)
        private
        pure
        returns (MessageHashes.Receipt memory message)
    {
        message.typeHash = MessageHashes.RECEIPT_TYPEHASH;
        message.jobId = jobId;
        message.round = round;
        message.base = base;
    }

    /// @dev Checks that the node's key (a word, see {Slots}) signed the receipt, or one that was the node's after `graceStart`.
    function _requireSignedByNode(
        bytes32 domain,
        MessageHashes.Receipt memory message,
        uint8 v,
        bytes32 r,
        bytes32 s,
        uint256 key,
        uint256 graceStart
    ) private view {
        uint32 nodeId = uint32(message.nodeId);
        bytes32 digest = MessageHashUtils.toTypedDataHash(domain, MessageHashes.hash(message));
        // Zero if the signature is not valid, which no node's hot key is. Refuses a high `s` (EIP-2).
        address signer = uint256(s) > HALF_ORDER ? address(0) : ecrecover(digest, v, r, s);
        uint256 endedAt = Slots.expiresAtOf(key);
        if (signer != Slots.hotKeyOf(key)) {
            endedAt = _keyEndedAt[nodeId][signer];
            if (endedAt == 0) revert InvalidReceiptSignature(nodeId, signer);
        }
        if (endedAt <= graceStart) revert HotKeyExpired(nodeId, uint64(endedAt));
    }

    /// @dev Reverts while settlement is paused.
    function _requireSettlement() private view returns (uint64 graceStart) {
        Pauses memory pauses = _pauses;
        if (block.timestamp < pauses.settlementUntil) revert IsPaused(pauses.settlementUntil);
        return _graceStart(pauses);
    }
}
