// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Draws by a block hash
/// @notice A draw is scheduled for the hash of a block to come, which nobody knows yet, and done by anyone once the
/// block is there. Every participant gets a ticket, keccak256(seed, id); the lowest tickets win. So whoever leaves
/// or joins after the hash is known changes its own luck only, never who of the others is drawn.
/// @dev Limits: the producer of the block can give up its block to get another hash, one more ticket at the price
/// of a block. A hash can be read for 256 blocks; if nobody does the draw in that time, another block is scheduled,
/// which is a second try for whoever kept all others from doing it. Good enough to choose among bonded attestors,
/// each of whom loses its bond if it is caught; not for a lottery.
library Draw {
    /// @dev Blocks from scheduling to the block that draws.
    uint64 internal constant DELAY = 2;

    /// @notice The block that draws what is scheduled now.
    function scheduled() internal view returns (uint64) {
        return uint64(block.number) + DELAY;
    }

    /// @notice Hash of the block; zero if it is not there yet, or can be read no longer.
    function seedOf(uint64 drawBlock) internal view returns (bytes32) {
        return blockhash(drawBlock);
    }

    /// @notice `count` of the pool's distinct ids; all of them if there are no more.
    /// @dev Reorders the pool. About `pool.length * count` steps.
    function choose(uint32[] memory pool, uint256 count, bytes32 seed)
        internal
        pure
        returns (uint32[] memory chosen)
    {
        uint256 size = pool.length;
        if (count >= size) return pool;
        bytes32[] memory tickets = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            tickets[i] = keccak256(abi.encode(seed, pool[i]));
        }
        chosen = new uint32[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 lowest = i;
            for (uint256 j = i + 1; j < size; ++j) {
                if (tickets[j] < tickets[lowest]) lowest = j;
            }
            chosen[i] = pool[lowest];
            (tickets[lowest], pool[lowest]) = (tickets[i], pool[i]);
        }
    }
}
