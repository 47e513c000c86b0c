// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Errors of proofs about settled rounds
interface IRoundProofErrors {
    /// @notice The batches shown are not those of the round.
    error RoundNotShown(bytes26 expected, bytes26 shown);

    /// @notice The bytes shown are not what batch `index` was settled with.
    error BatchNotShown(uint256 index);

    /// @notice There must be the receipts of each batch.
    error BatchesMissing(uint256 batches, uint256 shown);

    /// @notice The round holds a receipt of the node: it was not left out.
    error ReceiptPresent(uint32 nodeId);
}
