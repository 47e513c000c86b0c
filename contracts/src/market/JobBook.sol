// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {AttestorSet} from "./AttestorSet.sol";
import {NodeRegistry} from "./NodeRegistry.sol";

/// @title Jobs
/// @notice Escrow, the bids that were taken, and the two ways a job ends.
abstract contract JobBook is AttestorSet, NodeRegistry {
    /// @inheritdoc IComputeMarket
    uint64 public immutable exitNotice;

    mapping(uint256 jobId => Seat[MAX_NODES]) private _seats;
    mapping(uint256 jobId => Job) private _jobs;

    /// @inheritdoc IComputeMarket
    uint256 public jobCount;

    constructor(uint64 exitNotice_) {
        _requireDuration(exitNotice_);
        exitNotice = exitNotice_;
    }

    /*//////////////////////////////////////////////////////////////
                               MONEY IN
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function createJob(bytes32 spec, uint128 escrow, uint128 maxRate)
        external
        nonReentrant
        returns (uint256 jobId)
    {
        _requirePositive(escrow);
        jobId = ++jobCount;
        Job storage job = _jobs[jobId];
        job.requester = msg.sender;
        job.spec = spec;
        job.escrow = escrow;
        job.maxRate = maxRate;
        emit JobCreated(jobId, msg.sender, spec, escrow, maxRate);
        _pull(escrow);
    }

    /// @inheritdoc IComputeMarket
    function fundJob(uint256 jobId, uint128 amount) external nonReentrant {
        _requirePositive(amount);
        Job storage job = _stayingJob(jobId);
        job.escrow += amount;
        emit JobFunded(jobId, msg.sender, amount, job.escrow);
        _pull(amount);
    }

    /*//////////////////////////////////////////////////////////////
                                 BIDS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function takeBids(uint256 jobId, Bid[] calldata bids, bytes[] calldata signatures) external {
        if (bids.length != signatures.length) revert LengthMismatch(bids.length, signatures.length);
        uint128 maxRate = _stayingJob(jobId).maxRate;
        for (uint256 i = 0; i < bids.length; ++i) {
            _takeBid(jobId, maxRate, bids[i], signatures[i]);
        }
    }

    /*//////////////////////////////////////////////////////////////
                                 ENDS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function closeJob(uint256 jobId, uint64 rounds, uint128 spent, bytes[] calldata attestations)
        external
        nonReentrant
    {
        Job storage job = _openJob(jobId);
        if (rounds != job.round || spent != job.spent || job.batch != 0) {
            revert ClosureMismatch(jobId, job.round, job.spent, job.batch);
        }
        _requireQuorum(MessageHashes.jobClosure(jobId, rounds, spent), attestations);
        _close(jobId, job);
    }

    /// @inheritdoc IComputeMarket
    function requestExit(uint256 jobId) external {
        Job storage job = _stayingJob(jobId);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        job.exitAvailableAt = uint64(block.timestamp) + exitNotice;
        emit JobExitRequested(jobId, job.exitAvailableAt);
    }

    /// @inheritdoc IComputeMarket
    function exitJob(uint256 jobId) external nonReentrant {
        Job storage job = _openJob(jobId);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        if (job.exitAvailableAt == 0) revert ExitNotRequested(jobId);
        _requireReached(job.exitAvailableAt);
        _close(jobId, job);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function getJob(uint256 jobId) external view returns (Job memory) {
        return _existingJob(jobId);
    }

    /// @inheritdoc IComputeMarket
    function getSeat(uint256 jobId, uint32 nodeId) external view returns (Seat memory seat) {
        if (nodeId < MAX_NODES) seat = _seats[jobId][nodeId];
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _takeBid(uint256 jobId, uint128 maxRate, Bid calldata bid, bytes calldata signature) private {
        uint32 nodeId = bid.nodeId;
        NodeProfile storage profile = _profile(nodeId);
        if (profile.retiredAt != 0) revert NodeIsRetired(nodeId);
        if (bid.jobId != 0 && bid.jobId != jobId) revert BidForOtherJob(nodeId, bid.jobId);
        if (block.timestamp >= bid.expiresAt) revert BidExpired(nodeId, bid.expiresAt);
        if (bid.nonce < profile.bidNonce) revert BidCancelled(nodeId, bid.nonce, profile.bidNonce);
        if (bid.rate > maxRate) revert RateAboveMax(nodeId, bid.rate, maxRate);
        if (bid.capacity == 0) revert ZeroCapacity(nodeId);
        Seat storage seat = _seats[jobId][nodeId];
        if (seat.capacity != 0) revert AlreadySeated(jobId, nodeId);
        _requireWalletSignature(profile.operator, _hashTypedDataV4(MessageHashes.bid(bid)), signature);

        seat.rate = bid.rate;
        seat.capacity = bid.capacity;
        emit BidTaken(jobId, nodeId, bid.rate, bid.capacity);
    }

    function _close(uint256 jobId, Job storage job) private {
        job.closed = true;
        uint128 refund = job.escrow - job.spent;
        emit JobClosed(jobId, job.round, job.spent, refund);
        if (refund != 0) _push(job.requester, refund);
    }

    function _seat(uint256 jobId, uint32 nodeId) internal view returns (Seat storage seat) {
        if (nodeId >= MAX_NODES) revert UnknownNode(nodeId);
        seat = _seats[jobId][nodeId];
        if (seat.capacity == 0) revert NotSeated(jobId, nodeId);
    }

    function _existingJob(uint256 jobId) internal view returns (Job storage job) {
        job = _jobs[jobId];
        if (job.requester == address(0)) revert UnknownJob(jobId);
    }

    function _openJob(uint256 jobId) internal view returns (Job storage job) {
        job = _existingJob(jobId);
        if (job.closed) revert JobIsClosed(jobId);
    }

    /// @dev An open job whose requester has not given notice.
    function _stayingJob(uint256 jobId) private view returns (Job storage job) {
        job = _openJob(jobId);
        if (job.exitAvailableAt != 0) revert JobIsExiting(jobId, job.exitAvailableAt);
    }
}
