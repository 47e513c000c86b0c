// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketTypes} from "../interfaces/IComputeMarketTypes.sol";
import {IRoundProofErrors} from "../interfaces/IRoundProofErrors.sol";
import {PackedReceipts} from "./PackedReceipts.sol";

/// @title Proofs about settled rounds
/// @notice Of a settled round the market keeps one hash, the digest of its batches. Whoever says something about a
/// receipt shows the batches again, and the packed receipts of those that matter. A proof of absence shows all of
/// them: about 4,400 gas a receipt, the floor price of its calldata (EIP-7623).
library RoundProofs {
    /// @notice The digest of a round after one batch more.
    function extend(bytes26 digest, IComputeMarketTypes.SettledBatch memory batch)
        internal
        pure
        returns (bytes26)
    {
        return bytes26(keccak256(abi.encode(digest, batch)));
    }

    /// @notice The receipt at `position` of batch `index` of a round, and the quality that it was paid.
    /// @dev Past the end it reverts, with a panic or an empty slice's error.
    /// @param digest The market's record of the round.
    function settled(
        bytes26 digest,
        IComputeMarketTypes.SettledBatch[] calldata batches,
        uint256 index,
        bytes calldata receipts,
        bytes calldata qualities,
        uint256 position
    ) internal pure returns (PackedReceipts.PackedReceipt memory receipt, uint16 quality) {
        requireRound(digest, batches);
        IComputeMarketTypes.SettledBatch calldata batch = batches[index];
        if (keccak256(receipts) != batch.receipts || keccak256(qualities) != batch.qualities) {
            revert IRoundProofErrors.BatchNotShown(index);
        }
        receipt = PackedReceipts.read(receipts, position);
        quality = uint16(bytes2(qualities[2 * position:2 * position + 2]));
    }

    /// @notice Reverts if the round holds a receipt of the node.
    /// @param receipts The packed receipts of each batch.
    function requireAbsent(
        bytes26 digest,
        IComputeMarketTypes.SettledBatch[] calldata batches,
        bytes[] calldata receipts,
        uint32 nodeId
    ) internal pure {
        requireRound(digest, batches);
        if (receipts.length != batches.length) {
            revert IRoundProofErrors.BatchesMissing(batches.length, receipts.length);
        }
        for (uint256 i = 0; i < batches.length; ++i) {
            bytes calldata packed = receipts[i];
            if (keccak256(packed) != batches[i].receipts) revert IRoundProofErrors.BatchNotShown(i);
            for (uint256 start = 0; start < packed.length; start += PackedReceipts.SIZE) {
                if (uint32(bytes4(packed[start:start + 4])) == nodeId) {
                    revert IRoundProofErrors.ReceiptPresent(nodeId);
                }
            }
        }
    }

    /// @notice Reverts unless these are all of the round's batches, in order.
    function requireRound(bytes26 digest, IComputeMarketTypes.SettledBatch[] calldata batches) internal pure {
        bytes26 shown;
        for (uint256 i = 0; i < batches.length; ++i) {
            shown = bytes26(keccak256(abi.encode(shown, batches[i])));
        }
        if (shown != digest) revert IRoundProofErrors.RoundNotShown(digest, shown);
    }
}
