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
        (uint256 nodeId, uint256 units, bytes32 artifact, bytes32 r, bytes32 s, uint256 v) = load(item, 0);
        return PackedReceipt(uint32(nodeId), uint64(units), artifact, r, s, uint8(v));
    }

    /// @notice Receipt number `index`, for who knows that it is there: the length is not looked at.
    function load(bytes calldata receipts, uint256 index)
        internal
        pure
        returns (uint256 nodeId, uint256 units, bytes32 artifact, bytes32 r, bytes32 s, uint256 v)
    {
        // Calldata is read by words; what is behind a field is shifted out.
        assembly ("memory-safe") {
            let start := add(receipts.offset, mul(index, 109))
            let head := calldataload(start)
            nodeId := shr(224, head)
            units := and(shr(160, head), 0xffffffffffffffff)
            artifact := calldataload(add(start, 12))
            r := calldataload(add(start, 44))
            s := calldataload(add(start, 76))
            v := byte(0, calldataload(add(start, 108)))
        }
    }
}
