// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {PackedScores} from "../libraries/PackedScores.sol";
import {Governance} from "./Governance.sol";

/// @title Attestor sets
/// @notice Who vouches for quality in each epoch, as the registry says, and whether enough of them did.
abstract contract AttestorSets is Governance {
    uint256 private constant MAX_ATTESTORS = 16;

    /// @param endedAt When the next epoch began; 0 while this one is current.
    struct Epoch {
        uint64 endedAt;
        uint8 quorum;
        uint8 size;
        address[MAX_ATTESTORS] members;
    }

    mapping(uint32 epoch => Epoch) private _epochs;
    uint32 private _current;

    /// @inheritdoc IComputeMarket
    function beginEpoch(address[] calldata members, uint8 quorum) external returns (uint32 epoch) {
        if (msg.sender != registry) revert Unauthorized(msg.sender);
        if (
            members.length == 0 || members.length > MAX_ATTESTORS || quorum > members.length
                || 2 * uint256(quorum) <= members.length
        ) {
            revert InvalidQuorum(members.length, quorum, MAX_ATTESTORS);
        }
        _epochs[_current].endedAt = uint64(block.timestamp);
        epoch = ++_current;
        Epoch storage set = _epochs[epoch];
        set.quorum = quorum;
        set.size = uint8(members.length);
        for (uint256 i = 0; i < members.length; ++i) {
            _requireNonZero(members[i]);
            for (uint256 j = 0; j < i; ++j) {
                if (members[i] == members[j]) revert DuplicateAttestor(members[i]);
            }
            set.members[i] = members[i];
        }
        emit EpochBegun(epoch, members, quorum);
    }

    /// @inheritdoc IComputeMarket
    function getAttestors() external view returns (uint32 epoch, address[] memory members, uint8 quorum) {
        return (_current, _membersOf(_epochs[_current]), _epochs[_current].quorum);
    }

    /// @inheritdoc IComputeMarket
    function getEpoch(uint32 epoch)
        external
        view
        returns (address[] memory members, uint8 quorum, uint64 goodUntil)
    {
        Epoch storage set = _epochs[epoch];
        goodUntil = set.endedAt == 0 ? 0 : set.endedAt + SETTLEMENT_GRACE;
        return (_membersOf(set), set.quorum, goodUntil);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev Checks that a quorum has signed the batch and opened its scores.
    /// @return openings What they have committed to: the first `opened` of the array.
    /// @return opened How many did.
    /// @return attestors Bit `i` is set if member `i` did.
    function _requireAttested(
        BatchHeader calldata header,
        bytes calldata receipts,
        uint256 count,
        Attestation[] calldata attestations
    ) internal view returns (bytes[] memory openings, uint256 opened, uint16 attestors) {
        Epoch storage set = _goodEpoch(header.epoch);
        openings = new bytes[](attestations.length);
        bytes memory commitments;
        for (uint256 i = 0; i < attestations.length; ++i) {
            Attestation calldata attestation = attestations[i];
            address attestor = _memberAt(set, attestations, i);
            bool opens = attestation.signature.length != 0;
            uint256 expected = opens ? 2 * count : 0;
            if (attestation.scores.length != expected) {
                revert InvalidScoresLength(attestation.member, attestation.scores.length, expected);
            }
            bytes32 commitment = attestation.salt;
            if (opens) {
                bytes memory opening =
                    PackedScores.opening(attestor, attestation.salt, attestation.scores);
                openings[opened++] = opening;
                attestors |= uint16(1 << attestation.member);
                commitment = keccak256(opening);
            }
            commitments = bytes.concat(commitments, bytes1(attestation.member), commitment);
        }
        if (opened < set.quorum) revert QuorumNotReached(opened, set.quorum);

        // All sign one digest, which holds every commitment: nobody signs before all have committed.
        bytes32 digest = _hashTypedDataV4(
            MessageHashes.roundAttestation(header, keccak256(receipts), keccak256(commitments))
        );
        for (uint256 i = 0; i < attestations.length; ++i) {
            if (attestations[i].signature.length != 0) _requireSignedBy(set, digest, attestations[i]);
        }
    }

    /// @dev Checks that a quorum of the epoch's set has signed.
    function _requireQuorum(uint32 epoch, bytes32 structHash, Attestation[] calldata attestations)
        internal
        view
    {
        Epoch storage set = _goodEpoch(epoch);
        if (attestations.length < set.quorum) revert QuorumNotReached(attestations.length, set.quorum);
        bytes32 digest = _hashTypedDataV4(structHash);
        for (uint256 i = 0; i < attestations.length; ++i) {
            _memberAt(set, attestations, i);
            _requireSignedBy(set, digest, attestations[i]);
        }
    }

    function _goodEpoch(uint32 epoch) private view returns (Epoch storage set) {
        set = _epochs[epoch];
        uint64 endedAt = set.endedAt;
        if (set.size == 0 || (endedAt != 0 && endedAt <= _graceStart())) {
            revert EpochNotGood(epoch, endedAt == 0 ? 0 : endedAt + SETTLEMENT_GRACE);
        }
    }

    /// @dev The address of the member that attestation `i` names, which is above the one before.
    function _memberAt(Epoch storage set, Attestation[] calldata attestations, uint256 i)
        private
        view
        returns (address)
    {
        uint8 member = attestations[i].member;
        if (member >= set.size || (i != 0 && member <= attestations[i - 1].member)) {
            revert InvalidMember(member, set.size);
        }
        return set.members[member];
    }

    function _requireSignedBy(Epoch storage set, bytes32 digest, Attestation calldata attestation)
        private
        view
    {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, attestation.signature);
        if (signer != set.members[attestation.member]) revert InvalidAttestation(attestation.member, signer);
    }

    function _membersOf(Epoch storage set) private view returns (address[] memory members) {
        members = new address[](set.size);
        for (uint256 i = 0; i < members.length; ++i) {
            members[i] = set.members[i];
        }
    }
}
