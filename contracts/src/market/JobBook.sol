// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarketCore} from "../interfaces/IComputeMarketCore.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {Attestations} from "./Attestations.sol";
import {JobViews} from "./JobViews.sol";

/// @title Jobs
/// @notice Escrow, the bids that were taken, and the two ways a job ends.
abstract contract JobBook is Attestations, JobViews, Multicall {
    /*//////////////////////////////////////////////////////////////
                               MONEY IN
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketCore
    function createJob(bytes32 spec, uint128 escrow, uint96 maxRate)
        external
        nonReentrant
        returns (uint256 jobId)
    {
        jobId = _createJob(msg.sender, spec, escrow, maxRate);
        _pull(escrow);
    }

    /// @inheritdoc IComputeMarketCore
    function createJobWithAuthorization(
        bytes32 spec,
        uint128 escrow,
        uint96 maxRate,
        Authorization calldata authorization
    ) external nonReentrant returns (uint256 jobId) {
        jobId = _createJob(authorization.from, spec, escrow, maxRate);
        bytes32 purpose = keccak256(abi.encode("createJob", spec, escrow, maxRate, authorization.salt));
        _pullAuthorized(escrow, purpose, authorization);
    }

    /// @inheritdoc IComputeMarketCore
    function fundJob(uint256 jobId, uint128 amount) external nonReentrant {
        _fundJob(msg.sender, jobId, amount);
        _pull(amount);
    }

    /// @inheritdoc IComputeMarketCore
    function fundJobWithAuthorization(uint256 jobId, uint128 amount, Authorization calldata authorization)
        external
        nonReentrant
    {
        _fundJob(authorization.from, jobId, amount);
        bytes32 purpose = keccak256(abi.encode("fundJob", jobId, amount, authorization.salt));
        _pullAuthorized(amount, purpose, authorization);
    }

    /// @inheritdoc IComputeMarketCore
    function permit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        // Whoever sees a permit can use it first. Then the allowance is there, and the deposit goes on.
        try IERC20Permit(address(_token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
    }

    /*//////////////////////////////////////////////////////////////
                                 BIDS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketCore
    function takeBids(
        uint256 jobId,
        Bid[] calldata bids,
        bytes[] calldata signatures,
        uint48 maxUnits,
        bytes calldata consent
    ) external {
        if (bids.length != signatures.length) {
            revert LengthMismatch(bids.length, signatures.length);
        }
        _requirePositive(maxUnits);
        Job storage job = _stayingJob(jobId);
        _requireConsent(jobId, job.requester, bids, maxUnits, consent);
        uint96 maxRate = job.maxRate;
        for (uint256 i = 0; i < bids.length; ++i) {
            _takeBid(jobId, maxRate, maxUnits, bids[i], signatures[i]);
        }
    }

    /*//////////////////////////////////////////////////////////////
                                 ENDS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketCore
    function closeJob(
        uint256 jobId,
        uint64 rounds,
        uint128 spent,
        uint32 epoch,
        Attestation[] calldata attestations
    ) external nonReentrant {
        Job storage job = _openJob(jobId);
        if (rounds != job.round || spent != job.spent || job.batch != 0) {
            revert ClosureMismatch(jobId, job.round, job.spent, job.batch);
        }
        _requireQuorum(epoch, MessageHashes.jobClosure(jobId, rounds, spent, epoch), attestations);
        _close(jobId, job);
    }

    /// @inheritdoc IComputeMarketCore
    function requestExit(uint256 jobId) external {
        Job storage job = _stayingJob(jobId);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        job.exitAvailableAt = uint64(block.timestamp) + _terms.exitNotice;
        _pausedAtNotice[jobId] = _pausedTime();
        emit JobExitRequested(jobId, job.exitAvailableAt);
    }

    /// @inheritdoc IComputeMarketCore
    function exitJob(uint256 jobId) external nonReentrant {
        Job storage job = _openJob(jobId);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        uint64 availableAt = _exitAvailableAt(jobId, job);
        if (availableAt == 0) revert ExitNotRequested(jobId);
        _requireReached(availableAt);
        _close(jobId, job);
    }

    /// @inheritdoc IComputeMarketCore
    function collect() external nonReentrant {
        uint128 amount = _owedTo[msg.sender];
        if (amount == 0) revert NothingToCollect(msg.sender);
        _owedTo[msg.sender] = 0;
        _holdings.owed -= amount;
        emit Collected(msg.sender, amount);
        _push(msg.sender, amount);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev An open job whose requester has not given notice.
    function _stayingJob(uint256 jobId) private view returns (Job storage job) {
        job = _openJob(jobId);
        if (job.exitAvailableAt != 0) revert JobIsExiting(jobId, _exitAvailableAt(jobId, job));
    }

    function _createJob(address requester, bytes32 spec, uint128 escrow, uint96 maxRate)
        private
        returns (uint256 jobId)
    {
        if (block.timestamp < _pauses.newJobsUntil) revert IsPaused(_pauses.newJobsUntil);
        _requirePositive(escrow);
        jobId = ++_jobCount;
        Job storage job = _jobs[jobId].job;
        job.requester = requester;
        job.spec = spec;
        job.escrow = escrow;
        job.maxRate = maxRate;
        _holdings.escrow += escrow;
        emit JobCreated(jobId, requester, spec, escrow, maxRate);
    }

    function _fundJob(address from, uint256 jobId, uint128 amount) private {
        _requirePositive(amount);
        Job storage job = _stayingJob(jobId);
        job.escrow += amount;
        _holdings.escrow += amount;
        emit JobFunded(jobId, from, amount, job.escrow);
    }

    /// @dev A seat can reserve escrow, so no node takes one that nobody gave it.
    function _requireConsent(
        uint256 jobId,
        address requester,
        Bid[] calldata bids,
        uint48 maxUnits,
        bytes calldata consent
    ) private view {
        if (msg.sender == _coordinator || msg.sender == requester) return;
        bytes32 digest = _hashTypedDataV4(MessageHashes.seating(jobId, maxUnits, bids));
        if (!_hasSigned(_coordinator, digest, consent) && !_hasSigned(requester, digest, consent)) {
            revert InvalidConsent(jobId);
        }
    }

    function _takeBid(
        uint256 jobId,
        uint96 maxRate,
        uint48 maxUnits,
        Bid calldata bid,
        bytes calldata signature
    ) private {
        uint32 nodeId = bid.nodeId;
        NodeProfile storage profile = _profile(nodeId);
        if (profile.retiredAt != 0) revert NodeIsRetired(nodeId);
        if (bid.jobId != 0 && bid.jobId != jobId) revert BidForOtherJob(nodeId, bid.jobId);
        if (block.timestamp >= bid.expiresAt) revert BidExpired(nodeId, bid.expiresAt);
        if (bid.nonce < profile.bidNonce) revert BidCancelled(nodeId, bid.nonce, profile.bidNonce);
        if (bid.rate > maxRate) revert RateAboveMax(nodeId, bid.rate, maxRate);
        if (bid.capacity == 0) revert ZeroCapacity(nodeId);
        if (bid.capacity > type(uint48).max) {
            revert CapacityAboveMax(nodeId, bid.capacity, type(uint48).max);
        }
        Seat storage seat = _seats[jobId][nodeId];
        if (seat.capacity != 0) revert AlreadySeated(jobId, nodeId);
        _requireWalletSignature(profile.operator, MessageHashes.bid(bid), signature);

        // Both fit: checked above.
        seat.rate = uint96(bid.rate);
        seat.capacity = uint48(Math.min(bid.capacity, maxUnits));
        emit BidTaken(jobId, nodeId, bid.rate, seat.capacity);
    }

    function _close(uint256 jobId, Job storage job) private {
        if (job.records != 0) revert RecordsPending(jobId, job.records);
        job.closed = true;
        uint128 refund = job.escrow - job.spent;
        _holdings.escrow -= refund;
        emit JobClosed(jobId, job.round, job.spent, refund);
        if (refund != 0) _push(job.requester, refund);
    }
}
