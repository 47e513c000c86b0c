// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Types of the compute market
/// @notice Amounts are in the token's base units. A unit of work is one training sample (one sequence for
/// text); a rate is base units per unit of work. Quality is in basis points: 10,000 is paid in full. Times are
/// unix seconds; a thing that expires at `t` is good while `block.timestamp < t`.
interface IComputeMarketTypes {
    /// @notice What the market's timelock may change, within bounds that the code fixes.
    /// @param minStake Stake that each active node binds, base units.
    /// @param exitNotice Seconds from a requester's notice to its exit; at least `challengeWindow + disputeTime`, so
    /// that the escrow is there for every dispute about what was done before.
    /// @param unbondingTime Seconds from a request to unbond to its payment; at least
    /// `challengeWindow + disputeTime`, so that stake is within reach of every dispute about what it stood for.
    /// @param challengeWindow Seconds after a round's settlement in which it may be disputed.
    /// @param disputeTime Most seconds from the opening of a dispute to its end.
    /// @param instantShare Share of an operator's slashable stake up to which credit can be withdrawn before its
    /// challenge window is over, basis points.
    struct Terms {
        uint128 minStake;
        uint64 exitNotice;
        uint64 unbondingTime;
        uint64 challengeWindow;
        uint64 disputeTime;
        uint16 instantShare;
    }

    /// @notice An operator's wallet: one stake for all of its nodes.
    /// @param stake Bonded amount; at least `minStake` for each active node, unless it was slashed.
    /// @param unbonding Amount on its way out; within reach of slashing until it is taken out.
    /// @param unstakeAvailableAt When `unbonding` can be taken out; 0 if nothing is on its way.
    /// @param activeNodes Nodes registered and not retired.
    /// @param advance Credit withdrawn before its challenge window was over; at most `instantShare` of
    /// `stake + unbonding`.
    struct Operator {
        uint128 stake;
        uint128 unbonding;
        uint64 unstakeAvailableAt;
        uint32 activeNodes;
        uint128 advance;
    }

    /// @notice One GPU of an operator, with the key on its machine.
    /// @param operator Wallet that staked for the node and is paid for it.
    /// @param hotKey Address of the key that signs the node's receipts.
    /// @param expiresAt From then on the hot key signs nothing new; its receipts settle for a grace period more.
    /// @param retiredAt When the node was retired; 0 while active.
    /// @param bidNonce Lowest nonce of a bid that is still good.
    /// @param previousKey The hot key before this one; its receipts settle until `previousUntil`, so that a change
    /// of keys never stops a batch.
    struct Node {
        address operator;
        address hotKey;
        uint64 expiresAt;
        uint64 retiredAt;
        uint64 bidNonce;
        address previousKey;
        uint64 previousUntil;
    }

    /// @notice What a node, or all nodes of an operator, has done and earned. Counters that are full stay full;
    /// they never block a payment.
    /// @param rounds Settled receipts (at most one for each job and round).
    /// @param units Sum of settled units.
    /// @param qualitySum Sum of the receipts' quality, in basis points; divide by `rounds` for the mean.
    /// @param faults Faults that a dispute has proven.
    /// @param credit Amount credited and not yet withdrawn or slashed.
    /// @param withdrawable Part of `credit` that can be withdrawn now.
    /// @param earned Amount ever credited.
    struct NodeMetrics {
        uint32 rounds;
        uint64 units;
        uint64 qualitySum;
        uint32 faults;
        uint128 credit;
        uint128 withdrawable;
        uint128 earned;
    }

    /// @notice A training job and its money.
    /// @param requester Wallet that pays, and that is refunded.
    /// @param spec SHA-256 of the job's canonical specification.
    /// @param escrow Amount ever deposited; `escrow - spent` is left, until the job is closed.
    /// @param spent Amount credited to nodes, less what disputes gave back.
    /// @param reserved Part of `escrow - spent` that is kept for recorded receipts which no batch has paid yet.
    /// @param records How many such receipts there are. The job cannot end while there is one.
    /// @param maxRate Highest rate that a bid may ask.
    /// @param round Round that settles next, which is the number of rounds settled; the first is 0.
    /// @param batch Batch of that round that settles next; the first is 0.
    /// @param lastNode Highest node id that the round has paid; ids increase within a round.
    /// @param exitAvailableAt When the requester may leave; 0 if it gave no notice.
    /// @param closed Whether the rest has been refunded. Nothing settles afterwards.
    struct Job {
        address requester;
        bytes32 spec;
        uint128 escrow;
        uint128 spent;
        uint128 reserved;
        uint32 records;
        uint96 maxRate;
        uint64 round;
        uint32 batch;
        uint32 lastNode;
        uint64 exitAvailableAt;
        bool closed;
    }

    /// @notice A node's place in a job: the bid that was taken, and the receipt that is recorded and not yet paid.
    /// @param rate Base units per unit of work.
    /// @param capacity Most units of one receipt: of the bid, or of the consent if that is less; 0 if the node has
    /// no seat.
    /// @param recordedUnits Units of the recorded receipt.
    /// @param recordedRound Its round, plus one; 0 if none is recorded.
    /// @param claimed Whether a dispute holds the record, so that it lapses `disputeTime` later.
    struct Seat {
        uint96 rate;
        uint48 capacity;
        uint48 recordedUnits;
        uint32 recordedRound;
        bool claimed;
    }

    /// @notice An offer, signed by the wallet of the node's operator (EIP-712).
    /// @param jobId Job that the bid is for; 0 for any job.
    /// @param nodeId Node on offer.
    /// @param rate Base units per unit of work.
    /// @param capacity Most units in a round; not 0, and at most 2^48 - 1.
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

    /// @notice The head of a batch, which every attestor signs.
    /// @param jobId Job.
    /// @param round The job's current round.
    /// @param batch The round's current batch.
    /// @param last Whether the round ends with this batch.
    /// @param epoch Epoch of the attestor set that signs: the current one, or the one before within its grace.
    /// @param base Hash of the checkpoint that the round started from.
    /// @param evidence Hash of the public document from which the scores can be recomputed.
    struct BatchHeader {
        uint256 jobId;
        uint64 round;
        uint32 batch;
        bool last;
        uint32 epoch;
        bytes32 base;
        bytes32 evidence;
    }

    /// @notice One attestor's part in a batch. First every attestor commits to its scores
    /// (`commitment = keccak256(attestor || salt || scores)`), then each signs the list of all commitments, and
    /// only then does it show its scores: nobody can copy.
    /// @param member Its index in the epoch's set.
    /// @param salt Opens the commitment; of an attestor that did not open, the commitment itself.
    /// @param scores One uint16, basis points, big endian, for each receipt, in their order; empty if not opened.
    /// @param signature Of RoundAttestation(jobId, round, batch, last, epoch, base, receipts, evidence,
    /// commitments); empty if not opened. `receipts` is keccak256 of the packed receipts, `commitments`
    /// keccak256 of the list: (uint8 member || bytes32 commitment) for each, by increasing member.
    struct Attestation {
        uint8 member;
        bytes32 salt;
        bytes scores;
        bytes signature;
    }

    /// @notice What is kept of a settled batch, as a hash. Whoever proves something about a round shows it again.
    /// @param base As in the header.
    /// @param evidence As in the header.
    /// @param receipts keccak256 of the packed receipts.
    /// @param qualities keccak256 of the paid qualities: one uint16, big endian, for each receipt.
    /// @param epoch As in the header.
    /// @param attestors Bit `i` is set if member `i` of the epoch's set opened.
    struct SettledBatch {
        bytes32 base;
        bytes32 evidence;
        bytes32 receipts;
        bytes32 qualities;
        uint32 epoch;
        uint16 attestors;
    }

    /// @notice What is kept of a round.
    /// @param digest Of its batches so far: d' = bytes26(keccak256(abi.encode(d, SettledBatch))), from zero.
    /// @param settledAt When its last batch was settled; 0 until then.
    /// @param accepted Whether the requester has accepted it: its credit is free, its quality beyond dispute.
    struct RoundRecord {
        bytes26 digest;
        uint40 settledAt;
        bool accepted;
    }

    /// @notice Credit paid out on the word of the operator's wallet, brought by anyone.
    /// @param nodeId Node whose credit it is.
    /// @param to Who gets `amount - fee`.
    /// @param amount Amount taken from the credit.
    /// @param fee Part of it that goes to whoever brings the message; may be 0.
    /// @param nonce The node's `withdrawalNonce`.
    /// @param deadline From then on the message is no longer good.
    struct Withdrawal {
        uint32 nodeId;
        address to;
        uint128 amount;
        uint128 fee;
        uint64 nonce;
        uint64 deadline;
    }

    /// @notice A deposit by EIP-3009: the token moves on the payer's signature of ReceiveWithAuthorization, and
    /// nobody needs gas but whoever brings it. The token's nonce is not free: it is the hash of what the money
    /// is for (see each function), so that it can be used for nothing else.
    /// @param from Payer.
    /// @param validAfter As in EIP-3009.
    /// @param validBefore As in EIP-3009.
    /// @param salt Any value that the payer has not used for the same purpose.
    /// @param signature Over the token's domain.
    struct Authorization {
        address from;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 salt;
        bytes signature;
    }

    /// @notice What a proven fault costs; only the dispute court says so.
    /// @param caseId The court's case.
    /// @param jobId Job that was harmed.
    /// @param nodeId Node at fault.
    /// @param restitution Amount that the job gets back: to its escrow, or to its requester once it is closed.
    /// @param penalty Amount on top, at most `minStake + restitution`.
    /// @param challenger Who proved the fault.
    /// @param costs Part of the penalty that repays the challenger's costs; at most a quarter of it. Of the rest,
    /// half goes to the harmed job and half to the insurance pool.
    struct Penalty {
        uint256 caseId;
        uint256 jobId;
        uint32 nodeId;
        uint128 restitution;
        uint128 penalty;
        address challenger;
        uint128 costs;
    }
}
