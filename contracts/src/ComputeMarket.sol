// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IComputeMarket} from "./interfaces/IComputeMarket.sol";
import {MessageHashes} from "./libraries/MessageHashes.sol";
import {PackedReceipts} from "./libraries/PackedReceipts.sol";
import {AttestorSet} from "./market/AttestorSet.sol";
import {JobBook} from "./market/JobBook.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {NodeRegistry} from "./market/NodeRegistry.sol";

/// @title Compute market
/// @notice See {IComputeMarket}. Here receipts become credit, and credit becomes money; the parts that it builds
/// on keep attestors, operators and jobs. The code cannot be replaced. The owner ("admin") can do one thing:
/// replace the attestors. A quorum of attestors decides what an open job's escrow pays, so the owner is trusted
/// as far as they are; stakes and credit are out of reach of both.
/// @dev Nodes lie in one array, and a job's seats in another, by their dense ids: neighbours share pages of 128
/// storage slots, by which Monad prices storage (MIP-8).
contract ComputeMarket is JobBook {
    using SafeCast for uint256;

    uint16 private constant QUALITY_ONE = 10_000;

    /// @param token_ Token of stakes, escrow and pay; moves exactly what it is asked to.
    /// @param minStake_ Stake that each active node binds, base units.
    /// @param admin May replace the attestors.
    /// @param attestors First attestors.
    /// @param quorum How many of them must sign.
    /// @param exitNotice_ Seconds of notice before a requester may leave; longer than a round and its disputes.
    /// @param unbondingTime_ Seconds before unbonded stake is paid out; longer than disputes.
    constructor(
        IERC20 token_,
        uint128 minStake_,
        address admin,
        address[] memory attestors,
        uint8 quorum,
        uint64 exitNotice_,
        uint64 unbondingTime_
    )
        MarketBase(token_)
        AttestorSet(admin, attestors, quorum)
        NodeRegistry(minStake_, unbondingTime_)
        JobBook(exitNotice_)
    {}

    /*//////////////////////////////////////////////////////////////
                              SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function settleRound(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipts,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external {
        if (receipts.length % PackedReceipts.SIZE != 0) {
            revert InvalidReceiptsLength(receipts.length);
        }
        _settle(jobId, round, batch, last, base, receipts, evidence, attestations);
    }

    /// @inheritdoc IComputeMarket
    function submitContribution(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipt,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external {
        if (receipt.length != PackedReceipts.SIZE) revert InvalidReceiptsLength(receipt.length);
        _settle(jobId, round, batch, last, base, receipt, evidence, attestations);
    }

    /// @inheritdoc IComputeMarket
    function calculateRewards(uint256 jobId, uint32 nodeId, uint64 units, uint16 quality)
        external
        view
        returns (uint256 amount)
    {
        _existingJob(jobId);
        return _reward(_seat(jobId, nodeId), nodeId, units, quality);
    }

    /*//////////////////////////////////////////////////////////////
                                CREDIT
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function withdraw(uint32 nodeId, uint128 amount, address to) external nonReentrant {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        _requirePositive(amount);
        _requireNonZero(to);
        if (to == address(this)) revert InvalidRecipient(to);
        uint128 credit = _nodes[nodeId].credit;
        if (amount > credit) revert InsufficientCredit(nodeId, amount, credit);
        _payOut(nodeId, profile, amount, to);
    }

    /// @inheritdoc IComputeMarket
    function distributePayments(uint32[] calldata nodeIds) external nonReentrant {
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            NodeProfile storage profile = _profile(nodeIds[i]);
            uint128 credit = _nodes[nodeIds[i]].credit;
            if (credit != 0) _payOut(nodeIds[i], profile, credit, profile.operator);
        }
    }

    /// @inheritdoc IComputeMarket
    function getNodeMetrics(uint32 nodeId) external view returns (NodeMetrics memory) {
        NodeProfile storage profile = _profile(nodeId);
        NodeState storage node = _nodes[nodeId];
        return NodeMetrics({
            rounds: node.rounds,
            units: node.units,
            qualitySum: node.qualitySum,
            lastSettledAt: node.lastSettledAt,
            credit: node.credit,
            earned: node.credit + profile.withdrawn
        });
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _settle(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipts,
        bytes32 evidence,
        bytes[] calldata attestations
    ) private {
        Job storage job = _openJob(jobId);
        if (round != job.round || batch != job.batch) {
            revert UnexpectedBatch(jobId, round, batch, job.round, job.batch);
        }
        _requireQuorum(
            MessageHashes.roundAttestation(jobId, round, batch, last, base, keccak256(receipts), evidence),
            attestations
        );

        if (last) {
            job.round = round + 1;
            job.batch = 0;
        } else {
            job.batch = batch + 1;
        }
        uint128 total = _creditReceipts(jobId, round, base, receipts, job.escrow - job.spent);
        job.spent += total;
        // Fits: calldata holds fewer than 2^32 receipts.
        uint32 count = uint32(receipts.length / PackedReceipts.SIZE);
        emit RoundSettled(jobId, round, batch, last, base, count, total, evidence);
    }

    function _creditReceipts(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        bytes calldata receipts,
        uint128 available
    ) private returns (uint128 total) {
        uint256 count = receipts.length / PackedReceipts.SIZE;
        for (uint256 i = 0; i < count; ++i) {
            total += _creditReceipt(jobId, round, base, PackedReceipts.read(receipts, i), available - total);
        }
    }

    function _creditReceipt(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        PackedReceipts.PackedReceipt memory receipt,
        uint128 available
    ) private returns (uint128 amount) {
        uint32 nodeId = receipt.nodeId;
        Seat storage seat = _seat(jobId, nodeId);
        if (seat.paidRound > round) revert AlreadyPaid(jobId, round, nodeId);
        NodeState storage node = _nodes[nodeId];
        _requireReceiptSignature(jobId, round, base, receipt, node);

        uint256 owed = _reward(seat, nodeId, receipt.units, receipt.quality);
        if (owed > available) revert InsufficientEscrow(jobId, owed, available);
        amount = owed.toUint128();

        seat.paidRound = round + 1;
        _record(node, receipt, amount);
        emit ContributionSettled(
            jobId, round, nodeId, receipt.units, receipt.quality, amount, receipt.artifact
        );
    }

    /// @dev A full counter stays full rather than block a payment. A credit that would not fit 104 bits (2e25
    /// dollars, with 6 decimals) reverts.
    function _record(NodeState storage node, PackedReceipts.PackedReceipt memory receipt, uint128 amount)
        private
    {
        node.credit = (node.credit + uint256(amount)).toUint104();
        node.rounds = uint32(Math.min(uint256(node.rounds) + 1, type(uint32).max));
        node.units = uint64(Math.min(uint256(node.units) + receipt.units, type(uint64).max));
        node.qualitySum = uint48(Math.min(uint256(node.qualitySum) + receipt.quality, type(uint48).max));
        node.lastSettledAt = uint40(block.timestamp);
    }

    function _reward(Seat storage seat, uint32 nodeId, uint64 units, uint16 quality)
        private
        view
        returns (uint256)
    {
        if (units > seat.capacity) revert UnitsAboveCapacity(nodeId, units, seat.capacity);
        if (quality > QUALITY_ONE) revert QualityAboveMax(nodeId, quality);
        // Cannot overflow: 64 + 128 + 14 bits.
        return uint256(units) * seat.rate * quality / QUALITY_ONE;
    }

    function _requireReceiptSignature(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        PackedReceipts.PackedReceipt memory receipt,
        NodeState storage node
    ) private view {
        uint64 expiresAt = node.expiresAt;
        if (block.timestamp >= expiresAt) revert HotKeyExpired(receipt.nodeId, expiresAt);
        bytes32 digest = _hashTypedDataV4(
            MessageHashes.receipt(jobId, round, receipt.nodeId, receipt.units, base, receipt.artifact)
        );
        // Zero if the signature is not valid, which no node's hot key is. Refuses a high `s` (EIP-2).
        (address signer,,) = ECDSA.tryRecover(digest, receipt.v, receipt.r, receipt.s);
        if (signer != node.hotKey) revert InvalidReceiptSignature(receipt.nodeId, signer);
    }

    function _payOut(uint32 nodeId, NodeProfile storage profile, uint128 amount, address to) private {
        _nodes[nodeId].credit = (_nodes[nodeId].credit - uint256(amount)).toUint104();
        profile.withdrawn += amount;
        emit CreditWithdrawn(nodeId, to, amount);
        _push(to, amount);
    }
}
