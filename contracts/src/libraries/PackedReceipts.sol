// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Packed receipts
/// @notice Reads receipts as `settleRound` takes them: 109 bytes each, big endian, one behind the other.
library PackedReceipts {
    /// @dev nodeId 4 | units 8 | artifact 32 | r 32 | s 32 | v 1
    uint256 internal constant SIZE = 109;

    struct PackedReceipt {
        uint32 nodeId;
        uint64 units;
        bytes32 artifact;
        bytes32 r;
        bytes32 s;
        uint8 v;
    }

    /// @notice Receipt number `index`. Reverts past the end, and on a torn receipt.
    function read(bytes calldata receipts, uint256 index)
        internal
        pure
        returns (PackedReceipt memory receipt)
    {
        bytes calldata item = receipts[index * SIZE:(index + 1) * SIZE];
        receipt.nodeId = uint32(bytes4(item[0:4]));
        receipt.units = uint64(bytes8(item[4:12]));
        receipt.artifact = bytes32(item[12:44]);
        receipt.r = bytes32(item[44:76]);
        receipt.s = bytes32(item[76:108]);
        receipt.v = uint8(item[108]);
    }
}
