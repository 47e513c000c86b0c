// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Errors of the compute market
interface IComputeMarketErrors {
    /// @notice An address that must be set is zero.
    error ZeroAddress();

    /// @notice An amount that must be positive is zero.
    error ZeroAmount();

    /// @notice A notice or unbonding time is zero or above `max` seconds.
    error InvalidDuration(uint64 duration, uint64 max);

    /// @notice The token moved another amount than asked (it takes a fee or rebases): it cannot be used here.
    error IncorrectDeposit(uint256 expected, uint256 received);

    /// @notice Credit cannot be sent to the market itself.
    error InvalidRecipient(address to);

    /// @notice No node has this id.
    error UnknownNode(uint32 nodeId);

    /// @notice All node ids are used up.
    error TooManyNodes(uint256 max);

    /// @notice The node is retired.
    error NodeIsRetired(uint32 nodeId);

    /// @notice Only the wallet that registered the node may do this.
    error NotOperator(uint32 nodeId, address caller);

    /// @notice The operator's bonded stake would not cover its active nodes.
    error InsufficientStake(uint256 required, uint256 available);

    /// @notice Nothing is unbonding.
    error NothingToUnstake(address operator);

    /// @notice The time for this has not come.
    error TooEarly(uint64 availableAt);

    /// @notice The delegation's time is over.
    error DelegationExpired(uint64 expiresAt);

    /// @notice The hot key is in use by another node.
    error HotKeyTaken(address hotKey, uint32 nodeId);

    /// @notice The hot key did not sign its delegation.
    error InvalidPossession(address hotKey, address recovered);

    /// @notice The operator's wallet did not sign this message.
    error InvalidOperatorSignature(address operator);

    /// @notice No job has this id.
    error UnknownJob(uint256 jobId);

    /// @notice The job is over.
    error JobIsClosed(uint256 jobId);

    /// @notice The requester has given notice.
    error JobIsExiting(uint256 jobId, uint64 availableAt);

    /// @notice The requester has given no notice.
    error ExitNotRequested(uint256 jobId);

    /// @notice Only the wallet that posted the job may do this.
    error NotRequester(uint256 jobId, address caller);

    /// @notice Each bid needs one signature.
    error LengthMismatch(uint256 bids, uint256 signatures);

    /// @notice The bid is for another job.
    error BidForOtherJob(uint32 nodeId, uint256 jobId);

    /// @notice The bid's time is over.
    error BidExpired(uint32 nodeId, uint64 expiresAt);

    /// @notice The operator has cancelled this bid.
    error BidCancelled(uint32 nodeId, uint64 nonce, uint64 minNonce);

    /// @notice The bid asks for more than the job pays.
    error RateAboveMax(uint32 nodeId, uint128 rate, uint128 maxRate);

    /// @notice The bid offers no work.
    error ZeroCapacity(uint32 nodeId);

    /// @notice The node has a seat in this job already.
    error AlreadySeated(uint256 jobId, uint32 nodeId);

    /// @notice The lowest good nonce of bids only rises.
    error NonceNotHigher(uint32 nodeId, uint64 minNonce, uint64 current);

    /// @notice Batches settle in order, without gaps, each once.
    error UnexpectedBatch(
        uint256 jobId, uint64 round, uint32 batch, uint64 expectedRound, uint32 expectedBatch
    );

    /// @notice The packed receipts are not a whole number of receipts, or not the number asked for.
    error InvalidReceiptsLength(uint256 length);

    /// @notice The node has no seat in the job.
    error NotSeated(uint256 jobId, uint32 nodeId);

    /// @notice The node was paid for this round.
    error AlreadyPaid(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice The node's hot key has expired; a new delegation of the same key makes its receipts good again.
    error HotKeyExpired(uint32 nodeId, uint64 expiresAt);

    /// @notice The node's hot key did not sign this receipt (zero: nobody did, or `s` is in the upper half).
    error InvalidReceiptSignature(uint32 nodeId, address recovered);

    /// @notice The receipt claims more units than the bid covers.
    error UnitsAboveCapacity(uint32 nodeId, uint64 units, uint64 capacity);

    /// @notice Quality is at most 10,000 basis points.
    error QualityAboveMax(uint32 nodeId, uint16 quality);

    /// @notice What is left of the escrow does not cover a receipt: the whole batch is refused.
    error InsufficientEscrow(uint256 jobId, uint256 required, uint256 available);

    /// @notice Fewer attestors signed than needed.
    error QuorumNotReached(uint256 signatures, uint256 quorum);

    /// @notice The signer is no attestor (zero: the signature is not valid, for this message or at all).
    error NotAttestor(address signer);

    /// @notice Attestations come in strictly increasing order of their signers, so that each counts once.
    error AttestorsOutOfOrder(address previous, address signer);

    /// @notice A set of attestors is 1 to `max` addresses, of which `quorum`, at least 1, must sign.
    error InvalidQuorum(uint256 attestors, uint8 quorum, uint256 max);

    /// @notice An attestor is named twice.
    error DuplicateAttestor(address attestor);

    /// @notice The closure does not name what is settled, or a round is half settled (`batch` is not 0).
    error ClosureMismatch(uint256 jobId, uint64 rounds, uint128 spent, uint32 batch);

    /// @notice The node has less credit than that.
    error InsufficientCredit(uint32 nodeId, uint128 amount, uint128 credit);
}
