// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketTypes} from "./IComputeMarketTypes.sol";

/// @title Dispute court
/// @notice Decides what the market cannot compute. Faults that two signatures prove are decided at once. Whether a
/// receipt was scored rightly is decided by a committee of attestors that did not sign it, drawn by a block that
/// nobody knew when the case was opened; it commits and reveals, and its lower median stands, unless an arbiter,
/// whom a loser may call, says otherwise before its deadline. Every step has a deadline and a default: silence
/// never locks money.
/// @dev Amounts are in the market token's base units, times in seconds, qualities in basis points.
interface IDisputeCourt is IComputeMarketTypes {
    enum Kind {
        None,
        Quality, // a receipt was paid, and should have been paid otherwise
        Availability, // a paid receipt's artifact cannot be had
        Omission // a recorded receipt was left out
    }

    enum Stage {
        None,
        Answering, // availability: waits for a pointer to the artifact
        Drawing, // waits for the block that draws the committee
        Committing,
        Revealing,
        Decided, // the committee has spoken; waits for an appeal
        Appealed, // waits for the arbiter
        Executed
    }

    /// @param kind What is disputed.
    /// @param stage Where the case stands.
    /// @param jobId Job of the receipt.
    /// @param round Its round.
    /// @param nodeId Its node.
    /// @param units Its units.
    /// @param paid Quality that was paid.
    /// @param finding Quality that was found.
    /// @param epoch Epoch of the attestors that signed the batch.
    /// @param attestors Which of its members did.
    /// @param challenger Who opened the case.
    /// @param bond What the challenger stakes on it.
    /// @param deadline When the stage ends.
    /// @param drawBlock Whose hash draws the committee.
    /// @param artifact SHA-256 of the contribution.
    /// @param evidence Hash of the public document from which the score can be recomputed.
    struct Case {
        Kind kind;
        Stage stage;
        uint256 jobId;
        uint64 round;
        uint32 nodeId;
        uint64 units;
        uint16 paid;
        uint16 finding;
        uint32 epoch;
        uint16 attestors;
        address challenger;
        uint128 bond;
        uint64 deadline;
        uint64 drawBlock;
        bytes32 artifact;
        bytes32 evidence;
    }

    /// @notice A settled receipt, shown again: see `SettledBatch`.
    struct ReceiptProof {
        SettledBatch[] batches;
        uint256 index;
        bytes receipts;
        bytes qualities;
        uint256 position;
    }

    /// @notice A receipt as its node signed it.
    struct SignedReceipt {
        uint256 jobId;
        uint64 round;
        uint32 nodeId;
        uint64 units;
        bytes32 base;
        bytes32 artifact;
        bytes signature;
    }

    /// @notice An attestation as its attestor signed it.
    struct SignedAttestation {
        BatchHeader header;
        bytes32 receipts;
        bytes32 commitments;
        bytes signature;
    }

    event ReceiptFaultProven(uint256 indexed caseId, uint32 indexed nodeId, uint256 indexed jobId, uint64 round);
    event AttestorFaultProven(uint256 indexed caseId, uint32 indexed attestorId, uint256 indexed jobId, uint64 round);
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
    event ArtifactShown(uint256 indexed caseId, string pointer);
    event CommitteeDrawn(uint256 indexed caseId, uint32[] attestorIds, uint64 commitUntil, uint64 revealUntil);
    event VoteCommitted(uint256 indexed caseId, uint32 indexed attestorId, bytes32 commitment);
    event VoteRevealed(uint256 indexed caseId, uint32 indexed attestorId, uint16 quality);
    event CaseDecided(uint256 indexed caseId, uint16 finding, uint64 appealUntil);
    event CaseAppealed(uint256 indexed caseId, address indexed by, uint64 rulingUntil);
    event CaseRuled(uint256 indexed caseId, uint16 finding);
    event CaseExecuted(uint256 indexed caseId, uint16 paid, uint16 finding, bool upheld);

    /// @notice Two receipts of one key for one job and round that differ. Decided at once.
    function proveReceiptFault(SignedReceipt calldata one, SignedReceipt calldata other)
        external
        returns (uint256 caseId);

    /// @notice Two attestations by one attestor of one batch of one round that differ. Decided at once.
    function proveAttestationFault(SignedAttestation calldata one, SignedAttestation calldata other)
        external
        returns (uint256 caseId);

    /// @notice Says that a settled receipt's quality is wrong. Takes the challenger's bond.
    function challengeQuality(uint256 jobId, uint64 round, ReceiptProof calldata proof)
        external
        returns (uint256 caseId);

    /// @notice Says that a settled receipt's artifact cannot be had. Takes the challenger's bond. If nobody shows it
    /// in time, the receipt is reversed.
    function challengeAvailability(uint256 jobId, uint64 round, ReceiptProof calldata proof)
        external
        returns (uint256 caseId);

    /// @notice Shows where the artifact is. Anyone may who has the node's hot key sign
    /// ArtifactPointer(caseId, artifact, pointer). The challenger may then `contest`, or loses its bond.
    function showArtifact(uint256 caseId, string calldata pointer, bytes calldata signature) external;

    /// @notice The challenger says that the pointer does not lead to the artifact: a committee looks.
    function contest(uint256 caseId) external;

    /// @notice Claims a recorded receipt that its settled round left out. Takes a bond. `receipts` are the packed
    /// receipts of each batch: the node is in none of them.
    function claimOmitted(SignedReceipt calldata receipt, SettledBatch[] calldata batches, bytes[] calldata receipts)
        external
        returns (uint256 caseId);

    /// @notice Draws the committee, once the block is there. Anyone may. If its hash is no longer to be had, a new
    /// block is chosen.
    function drawCommittee(uint256 caseId) external;

    /// @notice A member's commitment: keccak256(abi.encode(caseId, signer, quality, salt)). The caller is the signer.
    function commitVote(uint256 caseId, bytes32 commitment) external;

    function revealVote(uint256 caseId, uint16 quality, bytes32 salt) external;

    /// @notice Counts the votes, once all are revealed or the time is over. With fewer than half revealed, what was
    /// paid stands and the bond goes back; members that were silent lose a part of theirs.
    function decide(uint256 caseId) external;

    /// @notice Calls the arbiter. Takes an appeal bond of whoever calls.
    function appeal(uint256 caseId) external;

    /// @notice The arbiter's word. If it does not come in time, the committee's stands.
    function rule(uint256 caseId, uint16 finding) external;

    /// @notice Moves the money of a decided case. Anyone may.
    function execute(uint256 caseId) external;

    /// @notice Pays the caller the bonds that came back to it.
    function collect() external;

    function getCase(uint256 caseId) external view returns (Case memory);

    function caseCount() external view returns (uint256);

    function owedTo(address account) external view returns (uint128);
}
