// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Node states
/// @notice What settlement touches of a node, in one dense array of two slots each. It is the first storage of
/// the market, which begins at a page boundary (`layout at 0x80`): 64 neighbours share a page of 128 slots, by
/// which Monad prices storage (MIP-8).
abstract contract NodeStorage {
    /// @dev Settlement reads the first slot and writes the second.
    /// @param credit Amount credited and not yet taken: what settlement adds to.
    /// @param units Saturates, as do the other counters: a full counter must not block a payment.
    struct NodeState {
        address hotKey;
        uint64 expiresAt;
        uint32 faults;
        uint96 credit;
        uint64 units;
        uint64 qualitySum;
        uint32 rounds;
    }

    uint256 internal constant MAX_NODES = 1 << 24;

    NodeState[MAX_NODES] internal _nodes;
}
