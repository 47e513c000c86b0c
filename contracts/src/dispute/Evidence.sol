// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {IAttestorRegistry} from "../interfaces/IAttestorRegistry.sol";
import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {IComputeMarketTypes} from "../interfaces/IComputeMarketTypes.sol";
import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {PackedReceipts} from "../libraries/PackedReceipts.sol";
import {PackedScores} from "../libraries/PackedScores.sol";
import {RoundProofs} from "../libraries/RoundProofs.sol";

/// @title Evidence
/// @notice Reads what is shown to the court, and says what it proves. It keeps nothing, holds nothing and may do
/// nothing; it is a contract of its own only because the court would be too large otherwise.
/// @dev See {IDisputeCourt} for what each function takes. Each reverts unless the proof is whole.
contract Evidence is IComputeMarketTypes {
    /// @param fault Of two messages that exclude each other: what was signed twice, and by whom.
    /// @param attestorId Attestor at fault; 0 if it is a node.
    struct Exhibit {
        uint256 jobId;
        uint64 round;
        uint32 nodeId;
        uint64 units;
        uint16 paid;
        uint32 epoch;
        uint16 attestors;
        address operator;
        address requester;
        bytes32 artifact;
        bytes32 evidence;
        bytes32 fault;
        uint32 attestorId;
    }

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    uint256 private constant MAX_SET = 16;
    /// @dev As far ahead of its round as a job's receipts can be: the market records none beyond.
    uint64 private constant ROUNDS_AHEAD = 8;
    /// @dev Of an entry in the list of commitments: member 1 | commitment 32.
    uint256 private constant ENTRY = 33;

    IComputeMarket private immutable MARKET;
    IAttestorRegistry private immutable REGISTRY;
    bytes32 private immutable MARKET_NAME;
    bytes32 private immutable MARKET_VERSION;

    constructor(IComputeMarket market, IAttestorRegistry registry) {
        MARKET = market;
        REGISTRY = registry;
        (, string memory name, string memory version,,,,) = IERC5267(address(market)).eip712Domain();
        MARKET_NAME = keccak256(bytes(name));
        MARKET_VERSION = keccak256(bytes(version));
    }

    /*//////////////////////////////////////////////////////////////
                    FAULTS THAT SIGNATURES PROVE
    //////////////////////////////////////////////////////////////*/

    function receiptFault(
        IDisputeCourt.SignedReceipt calldata one,
        IDisputeCourt.SignedReceipt calldata other
    ) external view returns (Exhibit memory shown) {
        shown.jobId = one.jobId;
        shown.round = one.round;
        shown.nodeId = one.nodeId;
        bool same = one.jobId == other.jobId && one.round == other.round && one.nodeId == other.nodeId;
        (bytes32 hash, bytes32 otherHash) = (_hashReceipt(one), _hashReceipt(other));
        if (!same || hash == otherHash) revert IDisputeCourt.NoFault();
        address signer = _recover(hash, one.signature);
        requireNodeKey(shown.nodeId, signer);
        address otherSigner = _recover(otherHash, other.signature);
        if (otherSigner != signer) revert IDisputeCourt.NotSignedByNode(shown.nodeId, otherSigner);
        if (MARKET.getSeat(shown.jobId, shown.nodeId).capacity == 0) {
            revert IDisputeCourt.NotSeated(shown.jobId, shown.nodeId);
        }
        uint64 until = MARKET.getJob(shown.jobId).round + ROUNDS_AHEAD;
        if (shown.round >= until) revert IDisputeCourt.RoundOutOfReach(shown.jobId, shown.round, until);
        shown.fault = keccak256(abi.encode("receipts", shown.nodeId, signer));
        _nameParties(shown);
    }

    function attestationFault(
        IDisputeCourt.SignedAttestation calldata one,
        IDisputeCourt.SignedAttestation calldata other
    ) external view returns (Exhibit memory shown) {
        (BatchHeader calldata header, BatchHeader calldata otherHeader) = (one.header, other.header);
        shown.jobId = header.jobId;
        shown.round = header.round;
        bool same = header.jobId == otherHeader.jobId && header.round == otherHeader.round
            && header.batch == otherHeader.batch;
        (bytes32 hash, bytes32 otherHash) = (_hashAttestation(one), _hashAttestation(other));
        if (!same || hash == otherHash) revert IDisputeCourt.NoFault();
        address signer = _recover(hash, one.signature);
        shown.attestorId = _requireMember(header.epoch, signer);
        address otherSigner = _recover(otherHash, other.signature);
        if (otherSigner != signer) {
            revert IDisputeCourt.NotSignedByMember(otherHeader.epoch, otherSigner);
        }
        _requireMember(otherHeader.epoch, signer);
        shown.fault =
            keccak256(abi.encode("attestations", shown.attestorId, header.jobId, header.round, header.batch));
        shown.requester = MARKET.getJob(shown.jobId).requester;
    }

    /*//////////////////////////////////////////////////////////////
                              RECEIPTS
    //////////////////////////////////////////////////////////////*/

    function settledReceipt(uint256 jobId, uint64 round, IDisputeCourt.ReceiptProof calldata proof)
        external
        view
        returns (Exhibit memory shown)
    {
        (shown.jobId, shown.round) = (jobId, round);
        RoundRecord memory record = MARKET.getRound(jobId, round);
        // A round whose first batches are settled can be disputed for as long as the others take.
        if (record.settledAt != 0 || record.digest == 0) _requireWindow(jobId, round, record);
        if (record.accepted) revert IDisputeCourt.RoundIsAccepted(jobId, round);
        PackedReceipts.PackedReceipt memory receipt;
        (receipt, shown.paid) = RoundProofs.settled(
            record.digest, proof.batches, proof.index, proof.receipts, proof.qualities, proof.position
        );
        (shown.nodeId, shown.units, shown.artifact) = (receipt.nodeId, receipt.units, receipt.artifact);
        _describe(shown, proof.batches[proof.index]);
    }

    function omittedReceipt(
        IDisputeCourt.SignedReceipt calldata receipt,
        SettledBatch[] calldata batches,
        bytes[] calldata receipts
    ) external view returns (Exhibit memory shown) {
        (shown.jobId, shown.round, shown.nodeId) = (receipt.jobId, receipt.round, receipt.nodeId);
        RoundRecord memory record = MARKET.getRound(shown.jobId, shown.round);
        _requireWindow(shown.jobId, shown.round, record);
        RoundProofs.requireAbsent(record.digest, batches, receipts, shown.nodeId);
        requireNodeKey(shown.nodeId, _recover(_hashReceipt(receipt), receipt.signature));
        _describe(shown, batches[batches.length - 1]);
        (shown.units, shown.artifact) = (receipt.units, receipt.artifact);
    }

    /*//////////////////////////////////////////////////////////////
                              ATTESTORS
    //////////////////////////////////////////////////////////////*/

    /// @notice The score that an attestor committed to for the receipt that a case is about.
    /// @dev The entry must be at the attestor's own number: anyone can put the hash of another's name and false
    /// scores into its own. An attestor signs no list that has anything but its commitment at its number.
    function committedScore(IDisputeCourt.Case calldata dispute, IDisputeCourt.ScoreProof calldata proof)
        external
        view
        returns (uint32 attestorId, uint16 score)
    {
        BatchHeader calldata header = proof.attestation.header;
        bool same = header.jobId == dispute.jobId && header.round == dispute.round
            && header.epoch == dispute.epoch && header.evidence == dispute.evidence;
        PackedReceipts.PackedReceipt memory receipt = PackedReceipts.read(proof.receipts, proof.position);
        if (
            !same || receipt.nodeId != dispute.nodeId || receipt.artifact != dispute.artifact
                || keccak256(proof.receipts) != proof.attestation.receipts
                || keccak256(proof.commitments) != proof.attestation.commitments
        ) revert IDisputeCourt.NoFault();
        address signer = _recover(_hashAttestation(proof.attestation), proof.attestation.signature);
        attestorId = _requireMember(header.epoch, signer);
        bytes32 commitment = keccak256(PackedScores.opening(signer, proof.salt, proof.scores));
        if (!_isListed(header.epoch, attestorId, commitment, proof.commitments)) {
            revert IDisputeCourt.NoFault();
        }
        score = uint16(bytes2(proof.scores[2 * proof.position:2 * proof.position + 2]));
    }

    /// @notice Those that can serve, but for signers of the batch and attestors of a party's wallet.
    function impartial(
        uint32 epoch,
        uint16 attestors,
        address challenger,
        address operator,
        address requester
    ) external view returns (uint32[] memory pool) {
        uint32[] memory signers = membersOf(epoch, attestors);
        pool = REGISTRY.eligible();
        uint256 count = 0;
        for (uint256 i = 0; i < pool.length; ++i) {
            address owner = REGISTRY.getAttestor(pool[i]).owner;
            bool isParty = owner == challenger || owner == operator || owner == requester;
            if (!isParty && !_contains(signers, pool[i])) pool[count++] = pool[i];
        }
        assembly ("memory-safe") {
            mstore(pool, count)
        }
    }

    /// @notice Attestors of the epoch's set whose bit is set in `mask`, by their member number; 0 for the others.
    function membersOf(uint32 epoch, uint16 mask) public view returns (uint32[] memory members) {
        members = new uint32[](MAX_SET);
        for (uint8 i = 0; i < MAX_SET; ++i) {
            if (mask & (1 << i) != 0) members[i] = REGISTRY.memberOf(epoch, i);
        }
    }

    /// @notice Reverts unless the signer is, or ever was, a hot key of the node.
    function requireNodeKey(uint32 nodeId, address signer) public view {
        if (signer == address(0) || MARKET.keyGoodUntil(nodeId, signer) == 0) {
            revert IDisputeCourt.NotSignedByNode(nodeId, signer);
        }
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _describe(Exhibit memory shown, SettledBatch calldata batch) private view {
        (shown.epoch, shown.attestors, shown.evidence) = (batch.epoch, batch.attestors, batch.evidence);
        _nameParties(shown);
    }

    function _nameParties(Exhibit memory shown) private view {
        shown.operator = MARKET.getNode(shown.nodeId).operator;
        shown.requester = MARKET.getJob(shown.jobId).requester;
    }

    /// @dev Reverts unless the round is settled and its challenge window open.
    function _requireWindow(uint256 jobId, uint64 round, RoundRecord memory record) private view {
        if (record.settledAt == 0) revert IDisputeCourt.WindowOver(jobId, round, 0);
        uint64 until = record.settledAt + MARKET.terms().challengeWindow;
        if (block.timestamp >= until) revert IDisputeCourt.WindowOver(jobId, round, until);
    }

    /// @dev Who signed a message of the market; zero if nobody did.
    function _recover(bytes32 structHash, bytes calldata signature) private view returns (address signer) {
        bytes32 separator = keccak256(
            abi.encode(DOMAIN_TYPEHASH, MARKET_NAME, MARKET_VERSION, block.chainid, address(MARKET))
        );
        (signer,,) =
            ECDSA.tryRecoverCalldata(MessageHashUtils.toTypedDataHash(separator, structHash), signature);
    }

    function _requireMember(uint32 epoch, address signer) private view returns (uint32 attestorId) {
        attestorId = REGISTRY.attestorOf(signer);
        if (attestorId == 0 || !_contains(membersOf(epoch, type(uint16).max), attestorId)) {
            revert IDisputeCourt.NotSignedByMember(epoch, signer);
        }
    }

    function _isListed(uint32 epoch, uint32 attestorId, bytes32 commitment, bytes calldata commitments)
        private
        view
        returns (bool)
    {
        for (uint256 start = 0; start < commitments.length; start += ENTRY) {
            bytes calldata entry = commitments[start:start + ENTRY];
            bool isOwn =
                bytes32(entry[1:]) == commitment && REGISTRY.memberOf(epoch, uint8(entry[0])) == attestorId;
            if (isOwn) return true;
        }
        return false;
    }

    function _hashReceipt(IDisputeCourt.SignedReceipt calldata receipt) private pure returns (bytes32) {
        return MessageHashes.receipt(
            receipt.jobId, receipt.round, receipt.nodeId, receipt.units, receipt.base, receipt.artifact
        );
    }

    function _hashAttestation(IDisputeCourt.SignedAttestation calldata attestation)
        private
        pure
        returns (bytes32)
    {
        return
            MessageHashes.roundAttestation(attestation.header, attestation.receipts, attestation.commitments);
    }

    function _contains(uint32[] memory ids, uint32 id) private pure returns (bool) {
        for (uint256 i = 0; i < ids.length; ++i) {
            if (ids[i] == id) return true;
        }
        return false;
    }
}
