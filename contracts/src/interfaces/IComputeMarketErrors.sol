// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Errors of the compute market
interface IComputeMarketErrors {
    /// @notice An address that must be set is zero.
    error ZeroAddress();

    /// @notice An amount that must be positive is zero.
    error ZeroAmount();

    /// @notice A term is outside the bounds that the code, or another term, sets for it.
    error TermOutOfBounds(uint256 value, uint256 min, uint256 max);

    /// @notice The caller has not the role that this needs.
    error Unauthorized(address caller);

    /// @notice Neither the market's coordinator nor the job's requester agreed to seat these bids.
    error InvalidConsent(uint256 jobId);

    /// @notice Registry, court and coordinator were named already.
    error AlreadyConnected();

    /// @notice This is paused until then.
    error IsPaused(uint64 until);

    /// @notice The token moved another amount than asked (it takes a fee or rebases): it cannot be used here.
    error IncorrectDeposit(uint256 expected, uint256 received);

    /// @notice Tokens cannot be sent to the market itself.
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

    /// @notice The wallet (an operator's or a requester's) did not sign this message.
    error InvalidWalletSignature(address wallet);

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

    /// @notice The bid offers more work than a seat can hold.
    error CapacityAboveMax(uint32 nodeId, uint64 capacity, uint64 max);

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

    /// @notice Node ids strictly increase within a round, across its batches, so that each is paid once.
    error NodesOutOfOrder(uint256 jobId, uint64 round, uint32 previous, uint32 nodeId);

    /// @notice The round has paid this node, or passed it over.
    error AlreadyPaid(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice The key was no longer the node's a grace period ago.
    error HotKeyExpired(uint32 nodeId, uint64 expiresAt);

    /// @notice No hot key of the node signed this receipt (zero: nobody did, or `s` is in the upper half).
    error InvalidReceiptSignature(uint32 nodeId, address recovered);

    /// @notice The receipt claims more units than the bid covers.
    error UnitsAboveCapacity(uint32 nodeId, uint64 units, uint64 capacity);

    /// @notice Quality is at most 10,000 basis points.
    error QualityAboveMax(uint32 nodeId, uint16 quality);

    /// @notice What is left of the escrow, and not reserved, does not cover a receipt: the whole batch is refused.
    error InsufficientEscrow(uint256 jobId, uint256 required, uint256 available);

    /// @notice A receipt can be recorded for rounds from the job's current one to `max`.
    error RoundOutOfReach(uint256 jobId, uint64 round, uint64 current, uint64 max);

    /// @notice The seat holds a record already; one at a time.
    error RecordExists(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice The seat holds no such record.
    error NoRecord(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice A dispute holds the record.
    error RecordIsHeld(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice The job cannot end while receipts are recorded that nobody has paid, claimed or lapsed.
    error RecordsPending(uint256 jobId, uint32 records);

    /// @notice The round is not settled.
    error RoundNotSettled(uint256 jobId, uint64 round);

    /// @notice The requester has accepted the round already.
    error AlreadyAccepted(uint256 jobId, uint64 round);

    /// @notice The requester has not accepted the round.
    error NotAccepted(uint256 jobId, uint64 round);

    /// @notice The receipt's credit was released already.
    error AlreadyReleased(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice A credit mark covers the receipt: its credit is free already.
    error AlreadyFree(uint256 jobId, uint64 round, uint32 nodeId);

    /// @notice No epoch has this number, or it is too long ago.
    error EpochNotGood(uint32 epoch, uint64 goodUntil);

    /// @notice Fewer attestors opened than needed.
    error QuorumNotReached(uint256 opened, uint256 quorum);

    /// @notice Attestations come by strictly increasing member of a set of `size`, so that each counts once.
    error InvalidMember(uint8 member, uint256 size);

    /// @notice An attestor shows one score of two bytes for each receipt, or nothing at all.
    error InvalidScoresLength(uint8 member, uint256 length, uint256 expected);

    /// @notice The attestor did not sign this (zero: nobody did).
    error InvalidAttestation(uint8 member, address recovered);

    /// @notice A set of attestors is 1 to `max` addresses, of which more than half, `quorum`, must open.
    error InvalidQuorum(uint256 attestors, uint8 quorum, uint256 max);

    /// @notice An attestor is named twice.
    error DuplicateAttestor(address attestor);

    /// @notice The closure does not name what is settled, or a round is half settled (`batch` is not 0).
    error ClosureMismatch(uint256 jobId, uint64 rounds, uint128 spent, uint32 batch);

    /// @notice The node has less withdrawable credit than that.
    error InsufficientCredit(uint32 nodeId, uint128 amount, uint128 withdrawable);

    /// @notice The withdrawal's time is over.
    error WithdrawalExpired(uint64 deadline);

    /// @notice The withdrawal is not the node's next one.
    error InvalidNonce(uint64 expected, uint64 actual);

    /// @notice The fee is more than the amount.
    error FeeAboveAmount(uint128 fee, uint128 amount);

    /// @notice The market owes the account nothing.
    error NothingToCollect(address account);

    /// @notice A penalty, the costs in it, or a restitution is above what the code allows.
    error PenaltyAboveMax(uint128 amount, uint128 max);

    /// @notice A dispute awards only more than was paid.
    error NothingToAward(uint16 from, uint16 to);
}
