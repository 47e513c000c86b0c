// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {MessageHashes} from "../libraries/MessageHashes.sol";
import {PackedScores} from "../libraries/PackedScores.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Attestations
/// @notice Whether enough of an epoch's attestors have vouched for something, and what they say of quality.
abstract contract Attestations is MarketBase {
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
}
