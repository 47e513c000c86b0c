// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IAttestorRegistry} from "./IAttestorRegistry.sol";
import {IComputeMarket} from "./IComputeMarket.sol";
import {IComputeMarketTypes} from "./IComputeMarketTypes.sol";
import {IPullPayments} from "./IPullPayments.sol";
import {IRoundProofErrors} from "./IRoundProofErrors.sol";

/// @title Dispute court
/// @notice Decides what the market cannot compute. Faults that two signatures prove are decided at once. Whether a
/// receipt was scored rightly is decided by a committee of attestors that did not sign it, drawn by a block that
/// nobody knew when the case was opened; it commits and reveals, and its lower median stands, unless an arbiter,
/// whom a loser may call, says otherwise before its deadline. Every step has a deadline and a default: silence
/// never locks money.
///
/// What a case costs and brings, once it is executed:
/// - Found as paid (within `tolerance`; an omitted receipt worth nothing): the challenger loses its bond, half to
///   the committee members that revealed, the rest to the registry's insurance. No party gets a bond that is lost:
///   a challenge by a friend, which only keeps others out, would cost nothing.
/// - Found to be worth less: the node gives back the difference and pays as much again, of which at most a quarter,
///   and at most the bond, repays the challenger's costs. The bond goes back.
/// - Found to be worth more: the market pays the node the difference. The bond goes back.
/// - Found by nobody (too few revealed, or no committee and no ruling): what was paid stands, an omitted receipt is
///   worth nothing, and the bond goes back.
/// - An attestor whose own score was off by more than `grossError` loses 5% of its bond to whoever proves it.
/// What a receipt was paid is held in the market while a case about it is open.
/// @dev EIP-712 domain: name "HyperGPU Court", version "1". Receipts and attestations are recovered in the market's
/// domain. Amounts are in the market token's base units, times in seconds, qualities in basis points. The token
/// balance is the sum of the bonds of open cases and of what is owed.
interface IDisputeCourt is IComputeMarketTypes, IPullPayments, IRoundProofErrors {
    /// @notice Fixed for good; other terms are another court. `answerTime + 2 * commitTime + revealTime +
    /// appealTime + rulingTime` is at most the market's `disputeTime`.
    /// @param bond What a challenger stakes on a case, and whoever appeals on the appeal, base units.
    /// @param answerTime For an availability case to be answered, in the first half, and contested, in the second.
    /// @param commitTime For the committee to be drawn, and then as long again for it to commit.
    /// @param revealTime For it to reveal.
    /// @param appealTime From its finding, for an appeal.
    /// @param rulingTime For the arbiter to rule.
    /// @param committeeSize Odd, at most 15. As few as one sit when no more are impartial: a committee of one or two is
    /// its members' word alone, and the appeal is what there is against it.
    /// @param tolerance A finding this near to what was paid changes nothing, basis points.
    struct CourtTerms {
        uint128 bond;
        uint64 answerTime;
        uint64 commitTime;
        uint64 revealTime;
        uint64 appealTime;
        uint64 rulingTime;
        uint8 committeeSize;
        uint16 tolerance;
    }

    enum Kind {
        Fault, // two signatures have proven it
        Quality, // a receipt was paid, and should have been paid otherwise
        Availability, // a paid receipt's artifact cannot be had
        Omission // a recorded receipt was left out
    }

    enum Stage {
        None,
        Answering, // availability: waits for a pointer to the artifact
        Shown, // availability: waits for the challenger to contest the pointer
        Drawing, // waits for the block that draws the committee
        Committing,
        Revealing,
        Decided, // the committee has spoken; waits for an appeal
        Appealed, // waits for the arbiter
        Executed
    }

    /// @param kind What is disputed.
    /// @param stage Where the case stands.
    /// @param found Whether anybody, or an unanswered challenge, has made a finding; if not, `finding` is the default.
    /// @param ruled Whether the arbiter has.
    /// @param round Round of the receipt.
    /// @param nodeId Its node.
    /// @param paid Quality that was paid, or found by the last case about the receipt.
    /// @param finding Quality that was found; until then the default: `paid`, which is 0 if it was omitted.
    /// @param decided The committee's finding, which an appeal is measured by.
    /// @param epoch Epoch of the attestors that signed the batch; of an omitted receipt, the round's last batch.
    /// @param attestors Which of its members did.
    /// @param jobId Job of the receipt.
    /// @param challenger Who opened the case, or contested what was shown: whose bond it is.
    /// @param units Units of the receipt.
    /// @param operator Wallet of the node's operator: a party.
    /// @param requester Wallet that posted the job: a party.
    /// @param bond What the challenger stakes on the case.
    /// @param held Credit of the node that the market holds until the case is over, base units.
    /// @param deadline When the stage ends.
    /// @param drawBlock Whose hash draws the committee.
    /// @param appellant Who called the arbiter; zero if nobody did.
    /// @param artifact SHA-256 of the contribution.
    /// @param evidence Hash of the public document from which the score can be recomputed.
    struct Case {
        Kind kind;
        Stage stage;
        bool found;
        bool ruled;
        uint64 round;
        uint32 nodeId;
        uint16 paid;
        uint16 finding;
        uint16 decided;
        uint32 epoch;
        uint16 attestors;
        uint256 jobId;
        address challenger;
        uint64 units;
        address operator;
        address requester;
        uint128 bond;
        uint128 held;
        uint64 deadline;
        uint64 drawBlock;
        address appellant;
        bytes32 artifact;
        bytes32 evidence;
    }

    /// @param drawn Whether the attestor is in the committee.
    /// @param revealed Whether it has revealed.
    /// @param quality What it found.
    /// @param commitment What it committed to; 0 until then.
    struct Vote {
        bool drawn;
        bool revealed;
        uint16 quality;
        bytes32 commitment;
    }

    /// @notice A settled receipt, shown again: see `SettledBatch`.
    /// @param batches The round's batches, in order.
    /// @param index Which of them holds the receipt.
    /// @param receipts The packed receipts of that batch.
    /// @param qualities The paid qualities of that batch.
    /// @param position Which of the receipts it is.
    struct ReceiptProof {
        SettledBatch[] batches;
        uint256 index;
        bytes receipts;
        bytes qualities;
        uint256 position;
    }

    /// @notice A receipt as its node signed it, in the market's domain.
    struct SignedReceipt {
        uint256 jobId;
        uint64 round;
        uint32 nodeId;
        uint64 units;
        bytes32 base;
        bytes32 artifact;
        bytes signature;
    }

    /// @notice An attestation as its attestor signed it, in the market's domain.
    struct SignedAttestation {
        BatchHeader header;
        bytes32 receipts;
        bytes32 commitments;
        bytes signature;
    }

    /// @notice What one attestor scored, shown again.
    /// @param attestation Its signature under the batch that holds the receipt.
    /// @param commitments The list that it signed: (uint8 member || bytes32 commitment) for each, by member.
    /// @param salt Opens its commitment.
    /// @param scores Its scores, one uint16, big endian, for each receipt.
    /// @param receipts The packed receipts of the batch.
    /// @param position Which of them the case is about.
    struct ScoreProof {
        SignedAttestation attestation;
        bytes commitments;
        bytes32 salt;
        bytes scores;
        bytes receipts;
        uint256 position;
    }

    /*//////////////////////////////////////////////////////////////
                                EVENTS
    //////////////////////////////////////////////////////////////*/

    /// @notice Emitted when a node is punished for two receipts that differ.
    event ReceiptFaultProven(
        uint256 indexed caseId, uint32 indexed nodeId, uint256 indexed jobId, uint64 round
    );

    /// @notice Emitted when an attestor is punished for two attestations that differ.
    event AttestorFaultProven(
        uint256 indexed caseId, uint32 indexed attestorId, uint256 indexed jobId, uint64 round
    );

    /// @notice Emitted when an attestor is punished for its own score, off by more than `grossError` in this case.
    event GrossScoreProven(uint256 indexed caseId, uint32 indexed attestorId, uint16 score);

    /// @notice Emitted when a case about a receipt is opened. `deadline` is that of its first stage.
    event CaseOpened(
        uint256 indexed caseId,
        uint256 indexed jobId,
        uint32 indexed nodeId,
        Kind kind,
        uint64 round,
        address challenger,
        uint128 bond,
        uint64 deadline
    );

    /// @notice Emitted when somebody shows where the artifact is.
    event ArtifactShown(uint256 indexed caseId, string pointer, uint64 contestUntil);

    /// @notice Emitted when `by`, the challenger from now on, says that the artifact is not there.
    event CaseContested(uint256 indexed caseId, address indexed by);

    /// @notice Emitted when a block is chosen to draw the committee: `drawCommittee` after it, within 256 blocks.
    event DrawScheduled(uint256 indexed caseId, uint64 drawBlock, uint64 drawUntil);

    /// @notice Emitted when the committee is drawn. It can reveal as soon as all have committed.
    event CommitteeDrawn(
        uint256 indexed caseId, uint32[] attestorIds, uint64 commitUntil, uint64 revealUntil
    );

    event VoteCommitted(uint256 indexed caseId, uint32 indexed attestorId, bytes32 commitment);

    event VoteRevealed(uint256 indexed caseId, uint32 indexed attestorId, uint16 quality);

    /// @notice Emitted when the committee's time is over. If it found nothing, `finding` is the default.
    event CaseDecided(uint256 indexed caseId, uint16 finding, bool found, uint64 appealUntil);

    /// @notice Emitted when the arbiter is called; `by` is zero if that is because nobody could be drawn.
    event CaseAppealed(uint256 indexed caseId, address indexed by, uint64 rulingUntil);

    event CaseRuled(uint256 indexed caseId, uint16 finding);

    /// @notice Emitted when the record that a former court held was freed.
    event RecordFreed(uint256 indexed jobId, uint32 indexed nodeId);

    /// @notice Emitted when a case is over. `upheld`: money moved in the market.
    event CaseExecuted(uint256 indexed caseId, uint16 paid, uint16 finding, bool upheld);

    /*//////////////////////////////////////////////////////////////
                                ERRORS
    //////////////////////////////////////////////////////////////*/

    /// @notice An address that must be set is zero.
    error ZeroAddress();

    /// @notice A term is outside the bounds that the code, or the market's terms, set for it.
    error TermOutOfBounds(uint256 value, uint256 min, uint256 max);

    /// @notice The messages are not about the same thing, or do not differ; or the score is not far off.
    error NoFault();

    /// @notice The fault was punished already.
    error AlreadyPunished(bytes32 fault);

    /// @notice The node has no seat in the job.
    error NotSeated(uint256 jobId, uint32 nodeId);

    /// @notice No hot key that the node has or had signed this (zero: nobody did).
    error NotSignedByNode(uint32 nodeId, address recovered);

    /// @notice The job does not get to rounds from `until` on for long: there is nothing to sign for them.
    error RoundOutOfReach(uint256 jobId, uint64 round, uint64 until);

    /// @notice No member of the epoch's set signed this (zero: nobody did).
    error NotSignedByMember(uint32 epoch, address recovered);

    /// @notice The round is not settled, or could be disputed only until `until`.
    error WindowOver(uint256 jobId, uint64 round, uint64 until);

    /// @notice The requester has accepted the round: its quality is beyond dispute.
    error RoundIsAccepted(uint256 jobId, uint64 round);

    /// @notice There is, or was, a case of this kind about the receipt.
    error AlreadyDisputed(uint256 caseId);

    /// @notice The receipt claims other units than the record.
    error UnitsMismatch(uint64 claimed, uint64 recorded);

    /// @notice The market has another court.
    error CourtReplaced();

    /// @notice No record of a former court is held there.
    error NoOrphan(uint256 jobId, uint32 nodeId);

    /// @notice The case is at another stage.
    error WrongStage(uint256 caseId, Stage stage);

    /// @notice The stage's time is over.
    error TooLate(uint64 deadline);

    /// @notice The stage's time is not over.
    error TooEarly(uint64 deadline);

    /// @notice The block that draws the committee is not there yet.
    error DrawNotReady(uint64 drawBlock);

    /// @notice The caller may not do this.
    error Unauthorized(address caller);

    /// @notice The caller is not in the committee.
    error NotInCommittee(uint256 caseId, address caller);

    /// @notice The member has committed, or revealed, already.
    error AlreadyVoted(uint256 caseId, uint32 attestorId);

    /// @notice A commitment is not zero.
    error EmptyCommitment();

    /// @notice This is not what the member committed to.
    error CommitmentMismatch(bytes32 committed, bytes32 revealed);

    /// @notice Quality is at most 10,000 basis points.
    error QualityAboveMax(uint16 quality);

    /*//////////////////////////////////////////////////////////////
                    FAULTS THAT SIGNATURES PROVE
    //////////////////////////////////////////////////////////////*/

    /// @notice Two receipts of one key of a node for one job and round that differ. Decided at once: costs the node
    /// the market's `minStake`. Anyone may; the caller is the challenger.
    /// @dev Once for each key, present or former: who steals one must not drain the stake of all of the operator's
    /// nodes with it. Rounds less than 8 ahead of the job's. Of what is left after costs the job gets half, as of
    /// any penalty, though nothing was taken from it: that is the market's split.
    function proveReceiptFault(SignedReceipt calldata one, SignedReceipt calldata other)
        external
        returns (uint256 caseId);

    /// @notice Two attestations by one attestor of one batch of one round that differ. Decided at once: costs the
    /// attestor 30% of its bond. Anyone may; the caller is the challenger.
    function proveAttestationFault(SignedAttestation calldata one, SignedAttestation calldata other)
        external
        returns (uint256 caseId);

    /// @notice After a quality case was executed with a finding: an attestor's own committed score for the receipt is
    /// off by more than `grossError`. Costs the attestor 5% of its bond, once in a case; half of what is left after
    /// the caller's costs goes to whom the score wronged. Anyone may.
    /// @dev Each answers for its own score only, not for a median that others made.
    function proveGrossScore(uint256 caseId, ScoreProof calldata proof) external;

    /*//////////////////////////////////////////////////////////////
                           OPENING A CASE
    //////////////////////////////////////////////////////////////*/

    /// @notice Says that a settled receipt's quality is wrong, either way. Takes the challenger's bond.
    /// @dev From the settlement of its batch to `challengeWindow` after that of its round's last, unless the requester
    /// has accepted it; a batch of a round that never ends can always be disputed. One case of each kind about a receipt,
    /// for ever, both at a time if need be: each moves the difference to what the other left, as far as there was escrow
    /// to pay it, and what cannot be had is worth no more for being good.
    function challengeQuality(uint256 jobId, uint64 round, ReceiptProof calldata proof)
        external
        returns (uint256 caseId);

    /// @notice Says that a settled receipt's artifact cannot be had. Takes the challenger's bond. If nobody shows it
    /// in time, the receipt is reversed: found to be worth 0. When: as `challengeQuality`.
    function challengeAvailability(uint256 jobId, uint64 round, ReceiptProof calldata proof)
        external
        returns (uint256 caseId);

    /// @notice Shows where the artifact is, within the first half of `answerTime`. Anyone may who has the node's hot
    /// key, any that it has or had, sign ArtifactPointer(caseId, artifact, pointer) in the court's domain. Somebody may
    /// then `contest`, or the challenger loses its bond.
    function showArtifact(uint256 caseId, string calldata pointer, bytes calldata signature) external;

    /// @notice Says that the pointer does not lead to the artifact: a committee looks. Until the end of `answerTime`.
    /// Anyone may: whoever did not open the case takes the challenger's place with a bond of its own, and the
    /// first one's goes back. So a friend's challenge shields nobody.
    function contest(uint256 caseId) external;

    /// @notice Claims a recorded receipt that its settled round left out, accepted or not. Takes a bond.
    /// @dev When nobody finds what it is worth, it is worth nothing, and the bond goes back: silence pays nobody.
    /// @param receipt As recorded, signed by a hot key that the node has or had.
    /// @param batches The round's batches, in order.
    /// @param receipts The packed receipts of each batch: the node is in none of them.
    function claimOmitted(
        SignedReceipt calldata receipt,
        SettledBatch[] calldata batches,
        bytes[] calldata receipts
    ) external returns (uint256 caseId);

    /*//////////////////////////////////////////////////////////////
                             THE COMMITTEE
    //////////////////////////////////////////////////////////////*/

    /// @notice Draws the committee, once the block is there. Anyone may. If its hash is no longer to be had, a new
    /// block is chosen. Those that signed the batch, and attestors of a party's wallet, are left out; if nobody is
    /// left, the arbiter is called.
    function drawCommittee(uint256 caseId) external;

    /// @notice A member's commitment: keccak256(abi.encode(caseId, signer, quality, salt)). The caller is the signer.
    function commitVote(uint256 caseId, bytes32 commitment) external;

    /// @notice Opens a commitment, once all members have committed or the time to is over.
    function revealVote(uint256 caseId, uint16 quality, bytes32 salt) external;

    /// @notice Ends the committee's part: counts the votes, once all that committed have revealed or the time is
    /// over; or notes that nobody answered, or nobody drew, in time. Anyone may. With fewer than half revealed, the
    /// default stands; members that did not reveal lose 1% of their bond.
    function decide(uint256 caseId) external;

    /*//////////////////////////////////////////////////////////////
                           APPEAL AND END
    //////////////////////////////////////////////////////////////*/

    /// @notice Calls the arbiter. The challenger, the node's operator or the job's requester may; takes a bond as
    /// large as the case's. It comes back if the arbiter moves the finding by more than `tolerance`, or says
    /// nothing in time; otherwise it goes to the registry's
    /// insurance.
    function appeal(uint256 caseId) external;

    /// @notice The arbiter's word. If it does not come in time, the committee's stands.
    function rule(uint256 caseId, uint16 finding) external;

    /// @notice Moves the money of a decided case. Anyone may; nothing that a party controls can stop it.
    /// @dev If the market has another court by now, nothing moves there, and all bonds go back.
    function execute(uint256 caseId) external;

    /// @notice Frees a record that a court before this one held for a case: without it the job could never end.
    /// Anyone may.
    function freeRecord(uint256 jobId, uint32 nodeId) external;

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @notice All zero if there is no such case. A stage whose time is over shows as it was until the next call.
    function getCase(uint256 caseId) external view returns (Case memory);

    /// @notice Attestors of the case's committee; empty until it is drawn.
    function getCommittee(uint256 caseId) external view returns (uint32[] memory attestorIds);

    function getVote(uint256 caseId, uint32 attestorId) external view returns (Vote memory);

    /// @notice The case of this kind about a receipt, open or over; 0 if there never was one.
    function caseOf(uint256 jobId, uint64 round, uint32 nodeId, Kind kind)
        external
        view
        returns (uint256 caseId);

    /// @notice Cases ever opened, faults too: the highest id.
    function caseCount() external view returns (uint256);

    /// @notice The sum of the bonds of open cases, appeals' included.
    function bonds() external view returns (uint128);

    function terms() external view returns (CourtTerms memory);

    /// @notice Error of a score for which its attestor answers, basis points.
    function grossError() external view returns (uint16);

    function market() external view returns (IComputeMarket);

    function registry() external view returns (IAttestorRegistry);

    /// @notice Who rules on appeals.
    function arbiter() external view returns (address);
}
