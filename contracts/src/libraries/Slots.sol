// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Storage slots of settlement
/// @notice A receipt touches three storage slots, each a packed struct of the market's storage. Read as one word and
/// taken apart here they cost a third of what the compiler makes of field after field. The layouts are Solidity's own:
/// the first field lies lowest.
/// @dev Seat: rate 96 | capacity 48 | recordedUnits 48 | recordedRound 32 | claimed 8.
/// Key: hotKey 160 | expiresAt 64 | faults 32. Work: credit 96 | units 64 | qualitySum 64 | rounds 32.
library Slots {
    uint256 private constant MAX_32 = type(uint32).max;
    uint256 private constant MAX_48 = type(uint48).max;
    uint256 private constant MAX_64 = type(uint64).max;
    uint256 private constant MAX_96 = type(uint96).max;

    /// @notice The node's credit would not fit 96 bits (8e22 dollars, with 6 decimals).
    error CreditOverflow(uint256 credit);

    function read(uint256 slot) internal view returns (uint256 word) {
        assembly ("memory-safe") {
            word := sload(slot)
        }
    }

    function write(uint256 slot, uint256 word) internal {
        assembly ("memory-safe") {
            sstore(slot, word)
        }
    }

    function rateOf(uint256 seat) internal pure returns (uint256) {
        return seat & MAX_96;
    }

    function capacityOf(uint256 seat) internal pure returns (uint256) {
        return seat >> 96 & MAX_48;
    }

    function recordedUnitsOf(uint256 seat) internal pure returns (uint256) {
        return seat >> 144 & MAX_48;
    }

    function recordedRoundOf(uint256 seat) internal pure returns (uint256) {
        return seat >> 192 & MAX_32;
    }

    /// @notice The seat without its record.
    function withoutRecord(uint256 seat) internal pure returns (uint256) {
        return seat & ~(MAX_48 << 144 | MAX_32 << 192);
    }

    function hotKeyOf(uint256 key) internal pure returns (address) {
        return address(uint160(key));
    }

    function expiresAtOf(uint256 key) internal pure returns (uint256) {
        return key >> 160 & MAX_64;
    }

    /// @notice The node's work with one receipt more. A counter that is full stays full rather than block a payment.
    /// @dev `amount` is below 2^128, `units` below 2^64, `quality` below 2^14.
    function add(uint256 work, uint256 amount, uint256 units, uint256 quality)
        internal
        pure
        returns (uint256)
    {
        // No sum leaves its field: credit and units are checked; the qualities of fewer than 2^32 receipts, which
        // the last field counts, take less than 46 bits.
        unchecked {
            uint256 credit = (work & MAX_96) + amount;
            if (credit > MAX_96) revert CreditOverflow(credit);
            uint256 room = MAX_64 - (work >> 96 & MAX_64);
            if (units > room) units = room;
            work += amount + (units << 96);
            if (work >> 224 != MAX_32) work += (quality << 160) + (1 << 224);
            return work;
        }
    }
}
