// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Types of the compute market
/// @notice Amounts are in the token's base units. A unit of work is one training sample (one sequence for
/// text); a rate is base units per unit of work. Quality is in basis points: 10,000 is paid in full. Times are
/// unix seconds; a thing that expires at `t` is good while `block.timestamp < t`.
interface IComputeMarketTypes {
    /// @notice An operator's wallet: one stake for all of its nodes.
    /// @param stake Bonded amount; at least `minStake` for each active node.
    /// @param unbonding Amount on its way out.
    /// @param unstakeAvailableAt When `unbonding` can be taken out; 0 if nothing is on its way.
    /// @param activeNodes Nodes registered and not retired.
    struct Operator {
        uint128 stake;
        uint128 unbonding;
        uint64 unstakeAvailableAt;
        uint32 activeNodes;
    }

    /// @notice One GPU of an operator, with the key on its machine.
    /// @param operator Wallet that staked for the node and is paid for it.
    /// @param hotKey Address of the key that signs the node's receipts.
    /// @param expiresAt From then on the hot key's receipts no longer settle.
    /// @param retiredAt When the node was retired; 0 while active.
    /// @param bidNonce Lowest nonce of a bid that is still good.
    struct Node {
        address operator;
        address hotKey;
        uint64 expiresAt;
        uint64 retiredAt;
        uint64 bidNonce;
    }

    /// @notice What a node has done and earned. Counters that are full stay full; they never block a payment.
    /// @param rounds Settled receipts (at most one for each job and round).
    /// @param units Sum of settled units.
    /// @param qualitySum Sum of the receipts' quality, in basis points; divide by `rounds` for the mean.
    /// @param lastSettledAt Time of the last settled receipt; 0 if none.
    /// @param credit Amount that can be withdrawn now.
    /// @param earned Amount ever credited.
    struct NodeMetrics {
        uint32 rounds;
        uint64 units;
        uint64 qualitySum;
        uint64 lastSettledAt;
        uint128 credit;
        uint128 earned;
    }

    /// @notice A training job and its money.
    /// @param requester Wallet that pays, and that is refunded.
    /// @param spec SHA-256 of the job's canonical specification.
    /// @param escrow Amount ever deposited; `escrow - spent` is left, until the job is closed.
    /// @param spent Amount credited to nodes.
    /// @param maxRate Highest rate that a bid may ask.
    /// @param round Round that settles next, which is the number of rounds settled; the first is 0.
    /// @param batch Batch of that round that settles next; the first is 0.
    /// @param exitAvailableAt When the requester may leave; 0 if it gave no notice.
    /// @param closed Whether the rest has been refunded. Nothing settles afterwards.
    struct Job {
        address requester;
        bytes32 spec;
        uint128 escrow;
        uint128 spent;
        uint128 maxRate;
        uint64 round;
        uint32 batch;
        uint64 exitAvailableAt;
        bool closed;
    }

    /// @notice A node's place in a job: the bid that was taken.
    /// @param rate Base units per unit of work.
    /// @param capacity Most units of one receipt; 0 if the node has no seat.
    /// @param paidRound The last round that paid the node, plus one; 0 if none did.
    struct Seat {
        uint128 rate;
        uint64 capacity;
        uint64 paidRound;
    }

    /// @notice An offer, signed by the wallet of the node's operator (EIP-712).
    /// @param jobId Job that the bid is for; 0 for any job.
    /// @param nodeId Node on offer.
    /// @param rate Base units per unit of work.
    /// @param capacity Most units in a round; not 0.
    /// @param expiresAt From then on the bid can no longer be taken. A seat that was taken stays.
    /// @param nonce At least the node's `bidNonce`, or the bid was cancelled.
    struct Bid {
        uint256 jobId;
        uint32 nodeId;
        uint128 rate;
        uint64 capacity;
        uint64 expiresAt;
        uint64 nonce;
    }
}

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

/// @title Compute market
/// @notice Holds the money between requesters, who pay for training, and operators, who stake and whose nodes
/// train. Nodes sign receipts for work, attestors sign its quality, and anyone may bring both here: the market
/// recomputes each payment, so whoever sends the transaction needs no trust.
/// @dev EIP-712 domain: name "HyperGPU", version "1". The token must move exactly the amounts it is asked to.
interface IComputeMarket is IComputeMarketTypes, IComputeMarketEvents, IComputeMarketErrors {
    /*//////////////////////////////////////////////////////////////
                          OPERATORS AND NODES
    //////////////////////////////////////////////////////////////*/

    /// @notice Adds a node of the caller, and `stakeAmount` to the caller's stake.
    /// @param hotKey Key of the node; belongs to no other node.
    /// @param expiresAt End of the delegation, in the future.
    /// @param stakeAmount Amount pulled from the caller; may be 0 if its stake covers one more node.
    /// @param possession The hot key's signature of Delegation(caller, hotKey, expiresAt, delegationNonce(hotKey)),
    /// so that nobody registers a key that is not theirs.
    /// @return nodeId Id of the node; ids start at 1 and are never used again.
    function registerNode(address hotKey, uint64 expiresAt, uint128 stakeAmount, bytes calldata possession)
        external
        returns (uint32 nodeId);

    /// @notice Renews a node's hot key, or replaces it. Both sign
    /// Delegation(operator, hotKey, expiresAt, delegationNonce(hotKey)).
    /// @dev Anyone may bring a renewal. A delegation names no node, so a new key, which could be put on any node
    /// of the operator, is accepted from the operator's wallet only. A replaced key is free again. On a retired
    /// node the key ends no later than `unbondingTime` after retirement.
    /// @param operatorSignature The operator's (ECDSA, or ERC-1271 if the wallet is a contract).
    /// @param possession The hot key's.
    function delegateHotKey(
        uint32 nodeId,
        address hotKey,
        uint64 expiresAt,
        bytes calldata operatorSignature,
        bytes calldata possession
    ) external;

    /// @notice Retires a node: it takes no more seats, and the stake that it bound can be unbonded. Its receipts
    /// settle for `unbondingTime` more: as long as its stake may still be within reach. Credit stays for ever.
    function retireNode(uint32 nodeId) external;

    /// @notice Adds `amount` to the caller's stake.
    function addStake(uint128 amount) external;

    /// @notice Starts to unbond `amount` of the caller's stake that no active node binds. What is unbonding
    /// already waits with it: `unbondingTime` from now for all.
    function requestUnstake(uint128 amount) external;

    /// @notice Pays the caller what it has unbonded.
    function unstake() external;

    /// @notice Cancels all bids of a node with a nonce below `minNonce`. Seats that were taken stay.
    function cancelBids(uint32 nodeId, uint64 minNonce) external;

    /*//////////////////////////////////////////////////////////////
                                  JOBS
    //////////////////////////////////////////////////////////////*/

    /// @notice Posts a job of the caller and pulls its escrow.
    /// @param spec SHA-256 of the canonical specification.
    /// @param escrow Amount pulled from the caller; more can follow.
    /// @param maxRate Highest rate that a bid may ask, base units per unit of work.
    /// @return jobId Id of the job; ids start at 1.
    function createJob(bytes32 spec, uint128 escrow, uint128 maxRate) external returns (uint256 jobId);

    /// @notice Adds `amount` of the caller's to a job's escrow. What is left at the end goes to the requester.
    function fundJob(uint256 jobId, uint128 amount) external;

    /// @notice Gives the bidding nodes their seats in a job. Anyone may bring signed bids; one that is not good
    /// refuses all.
    /// @param signatures One for each bid, by the wallet of the node's operator (ECDSA or ERC-1271).
    function takeBids(uint256 jobId, Bid[] calldata bids, bytes[] calldata signatures) external;

    /// @notice Ends a job of which all is settled, and refunds the rest at once.
    /// @param rounds Settled rounds; must equal the job's.
    /// @param spent Amount credited; must equal the job's.
    /// @param attestations A quorum's signatures of JobClosure(jobId, rounds, spent), by increasing signer.
    function closeJob(uint256 jobId, uint64 rounds, uint128 spent, bytes[] calldata attestations) external;

    /// @notice Gives notice: after `exitNotice` the requester may leave, whatever attestors say. Until it does,
    /// rounds settle as before; bids and deposits are refused. No round should be opened after notice.
    function requestExit(uint256 jobId) external;

    /// @notice Ends the caller's job after its notice, and refunds the rest.
    function exitJob(uint256 jobId) external;

    /*//////////////////////////////////////////////////////////////
                               SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @notice Pays a batch of receipts of a round, whole or not at all. Anyone may send it.
    /// @dev Each receipt is 111 bytes, big endian: nodeId uint32, units uint64, quality uint16, artifact bytes32,
    /// and the hot key's signature r bytes32, s bytes32 (lower half), v uint8 (27 or 28) of
    /// Receipt(jobId, round, nodeId, units, base, artifact). A round in which nothing was accepted has none.
    /// amount = units * rate * quality / 10,000, rounded down.
    /// @param round The job's current round.
    /// @param batch The round's current batch.
    /// @param last Whether the round ends with this batch.
    /// @param base Hash of the checkpoint that the round started from.
    /// @param receipts Packed receipts; a node at most once in a round.
    /// @param evidence Hash of the public document from which the qualities can be recomputed.
    /// @param attestations A quorum's signatures of
    /// RoundAttestation(jobId, round, batch, last, base, keccak256(receipts), evidence), by increasing signer.
    function settleRound(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipts,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external;

    /// @notice Pays one receipt: `settleRound` with a batch of exactly one.
    function submitContribution(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipt,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external;

    /// @notice What a receipt would be paid, by the rule that settlement uses.
    function calculateRewards(uint256 jobId, uint32 nodeId, uint64 units, uint16 quality)
        external
        view
        returns (uint256 amount);

    /*//////////////////////////////////////////////////////////////
                                 CREDIT
    //////////////////////////////////////////////////////////////*/

    /// @notice Pays `amount` of a node's credit to `to`. The node's operator only.
    function withdraw(uint32 nodeId, uint128 amount, address to) external;

    /// @notice Pays each node's whole credit to its operator's wallet. Anyone may send it; nodes without credit
    /// are passed over.
    function distributePayments(uint32[] calldata nodeIds) external;

    /*//////////////////////////////////////////////////////////////
                               ATTESTORS
    //////////////////////////////////////////////////////////////*/

    /// @notice Replaces the attestors. The admin only. A signature counts if its signer is an attestor when it is
    /// used, not when it was made.
    function setAttestors(address[] calldata attestors, uint8 quorum) external;

    /*//////////////////////////////////////////////////////////////
                                 VIEWS
    //////////////////////////////////////////////////////////////*/

    function getOperator(address operator) external view returns (Operator memory);

    function getNode(uint32 nodeId) external view returns (Node memory);

    function getNodeMetrics(uint32 nodeId) external view returns (NodeMetrics memory);

    function getJob(uint256 jobId) external view returns (Job memory);

    /// @notice All zero if the node has no seat in the job.
    function getSeat(uint256 jobId, uint32 nodeId) external view returns (Seat memory);

    /// @notice The current attestors, and how many of them must sign.
    function getAttestors() external view returns (address[] memory attestors, uint8 quorum);

    function isAttestor(address account) external view returns (bool);

    /// @notice The node whose hot key this is; 0 if none.
    function nodeOfKey(address hotKey) external view returns (uint32 nodeId);

    /// @notice How often this hot key has been delegated: the nonce of its next delegation.
    function delegationNonce(address hotKey) external view returns (uint64);

    /// @notice Lowest nonce of a node's bid that is still good.
    function bidNonce(uint32 nodeId) external view returns (uint64);

    /// @notice Nodes ever registered: the highest node id.
    function nodeCount() external view returns (uint32);

    /// @notice Jobs ever posted: the highest job id.
    function jobCount() external view returns (uint256);

    /// @notice Token of stakes, escrow and pay.
    function token() external view returns (IERC20);

    /// @notice Stake that each active node binds, base units.
    function minStake() external view returns (uint128);

    /// @notice Seconds from a requester's notice to its exit.
    function exitNotice() external view returns (uint64);

    /// @notice Seconds from a request to unbond to its payment.
    function unbondingTime() external view returns (uint64);
}
