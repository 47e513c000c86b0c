// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {MessageHashes} from "../libraries/MessageHashes.sol";
import {PackedScores} from "../libraries/PackedScores.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Attestations
/// @notice Whether enough of an epoch's attestors have vouched for something, and what they say of quality.
abstract contract Attestations is MarketBase {
    /// @dev Checks that a quorum has signed the batch and opened its scores, one for each of `count` receipts.
    /// @param receipts keccak256 of the packed receipts.
    /// @return openings What they have committed to: the first `opened` of the array.
    /// @return opened How many did.
    /// @return attestors Bit `i` is set if member `i` did.
    function _requireAttested(
        BatchHeader calldata header,
        bytes32 receipts,
        uint256 count,
        Attestation[] calldata attestations
    ) internal view returns (bytes[] memory openings, uint256 opened, uint16 attestors) {
        Epoch storage set = _goodEpoch(header.epoch);
        uint256 size = set.size;
        openings = new bytes[](attestations.length);
        bytes memory commitments;
        uint256 next = 0;
        for (uint256 i = 0; i < attestations.length; ++i) {
            Attestation calldata attestation = attestations[i];
            uint8 member = attestation.member;
            if (member < next || member >= size) revert InvalidMember(member, size);
            next = uint256(member) + 1;
            bytes32 commitment = attestation.salt;
            bytes calldata scores = attestation.scores;
            if (attestation.signature.length != 0) {
                if (scores.length != 2 * count) {
                    revert InvalidScoresLength(member, scores.length, 2 * count);
                }
                bytes memory opening = PackedScores.opening(set.members[member], commitment, scores);
                openings[opened++] = opening;
                attestors |= uint16(1 << member);
                commitment = keccak256(opening);
            } else if (scores.length != 0) {
                revert InvalidScoresLength(member, scores.length, 0);
            }
            commitments = bytes.concat(commitments, bytes1(member), commitment);
        }
        if (opened < set.quorum) revert QuorumNotReached(opened, set.quorum);

        // All sign one digest, which holds every commitment: nobody signs before all have committed.
        bytes32 digest =
            _hashTypedDataV4(MessageHashes.roundAttestation(header, receipts, keccak256(commitments)));
        for (uint256 i = 0; i < attestations.length; ++i) {
            Attestation calldata attestation = attestations[i];
            if (attestation.signature.length != 0) _requireSignedBy(set, digest, attestation);
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
        uint256 next = 0;
        for (uint256 i = 0; i < attestations.length; ++i) {
            uint8 member = attestations[i].member;
            if (member < next || member >= set.size) revert InvalidMember(member, set.size);
            next = uint256(member) + 1;
            _requireSignedBy(set, digest, attestations[i]);
        }
    }

    function _goodEpoch(uint32 epoch) private view returns (Epoch storage set) {
        set = _epochs[epoch];
        uint64 endedAt = set.endedAt;
        if (set.size == 0 || (endedAt != 0 && endedAt <= _graceStart(_pauses))) {
            revert EpochNotGood(epoch, endedAt == 0 ? 0 : endedAt + SETTLEMENT_GRACE);
        }
    }

    function _requireSignedBy(Epoch storage set, bytes32 digest, Attestation calldata attestation)
        private
        view
    {
        uint8 member = attestation.member;
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, attestation.signature);
        if (signer != set.members[member]) revert InvalidAttestation(member, signer);
    }
}
