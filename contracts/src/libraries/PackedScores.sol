// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Packed scores
/// @notice Commitments, the scores in them, and the median: the half of settlement that is about quality.
/// @dev An opening is what a commitment is the hash of: attestor 20 | salt 32 | scores 2 each, big endian.
library PackedScores {
    uint256 private constant OPENING_HEAD = 52;

    /// @notice What `attestor` committed to.
    function opening(address attestor, bytes32 salt, bytes calldata scores)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodePacked(attestor, salt, scores);
    }

    /// @notice The lower median of score number `index` over the first `count` openings, and the highest of them.
    /// @dev Each opening must hold more than `index` scores, and `count` be at least 1.
    function median(bytes[] memory openings, uint256 count, uint256 index)
        internal
        pure
        returns (uint256 middle, uint256 highest)
    {
        uint256 a = read(openings, 0, index);
        if (count == 1) return (a, a);
        uint256 b = read(openings, 1, index);
        (uint256 low, uint256 high) = a < b ? (a, b) : (b, a);
        if (count == 2) return (low, high);
        if (count == 3) {
            uint256 c = read(openings, 2, index);
            if (c <= low) return (low, high);
            return c < high ? (c, high) : (high, c);
        }
        return medianOfMany(openings, count, index);
    }

    /// @dev Insertion sort: there are at most 16.
    function medianOfMany(bytes[] memory openings, uint256 count, uint256 index)
        private
        pure
        returns (uint256 middle, uint256 highest)
    {
        uint256[] memory sorted = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 score = read(openings, i, index);
            uint256 place = i;
            for (; place > 0 && sorted[place - 1] > score; --place) {
                sorted[place] = sorted[place - 1];
            }
            sorted[place] = score;
        }
        return (sorted[(count - 1) / 2], sorted[count - 1]);
    }

    /// @dev The word that ends with the score: it starts within the opening, or within the word of its length. The
    /// caller vouches that opening and score are there.
    function read(bytes[] memory openings, uint256 which, uint256 index)
        private
        pure
        returns (uint256 score)
    {
        // No sum overflows: an index is below the length of calldata.
        unchecked {
            uint256 place = 0x20 + 0x20 * which;
            uint256 end = OPENING_HEAD + 2 * index + 2;
            assembly ("memory-safe") {
                score := and(mload(add(mload(add(openings, place)), end)), 0xffff)
            }
        }
    }

    /// @notice Writes `quality` as number `index` into `qualities`, two bytes each.
    /// @dev The caller vouches that `qualities` is long enough.
    function write(bytes memory qualities, uint256 index, uint256 quality) internal pure {
        assembly ("memory-safe") {
            let start := add(add(qualities, 0x20), mul(index, 2))
            mstore8(start, shr(8, quality))
            mstore8(add(start, 1), quality)
        }
    }
}
