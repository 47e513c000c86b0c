// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Slots} from "../src/libraries/Slots.sol";
import {vm} from "./utils/Vm.sol";

/// @notice Slots takes words apart by hand: here against the compiler's own packing.
contract SlotsTest {
    struct Work {
        uint96 credit;
        uint64 units;
        uint64 qualitySum;
        uint32 rounds;
    }

    struct Seat {
        uint96 rate;
        uint48 capacity;
        uint48 recordedUnits;
        uint32 recordedRound;
        bool claimed;
    }

    Work internal work;
    Seat internal seat;

    function add(uint128 amount, uint64 units, uint16 quality) external {
        uint256 slot;
        assembly ("memory-safe") {
            slot := work.slot
        }
        Slots.write(slot, Slots.add(Slots.read(slot), amount, units, quality));
    }

    /// @dev Fields are often full, where a carry would show in the next one. The sum of qualities cannot be: each of
    /// fewer than 2^32 receipts adds at most 2^14.
    function testFuzz_OneReceiptMore(
        Work memory before,
        uint8 full,
        uint128 amount,
        uint64 units,
        uint16 quality
    ) external {
        quality %= 10_001;
        before.qualitySum %= 1 << 46;
        if (full & 1 != 0) before.credit = type(uint96).max;
        if (full & 2 != 0) before.units = type(uint64).max;
        if (full & 4 != 0) before.rounds = type(uint32).max;
        if (full & 8 != 0) amount = 0;
        work = before;
        uint256 credit = uint256(before.credit) + amount;
        if (credit > type(uint96).max) {
            vm.expectRevert(abi.encodeWithSelector(Slots.CreditOverflow.selector, credit));
            this.add(amount, units, quality);
            return;
        }
        this.add(amount, units, quality);
        bool counts = before.rounds != type(uint32).max;
        uint256 sum = uint256(before.units) + units;
        vm.assertEq(work.credit, credit, "credit");
        vm.assertEq(work.units, sum > type(uint64).max ? type(uint64).max : sum, "units");
        vm.assertEq(work.qualitySum, before.qualitySum + (counts ? quality : 0), "qualities");
        vm.assertEq(work.rounds, before.rounds + (counts ? 1 : 0), "rounds");
    }

    function testFuzz_ASeatReadsAsItWasPacked(Seat memory packed) external {
        seat = packed;
        uint256 slot;
        assembly ("memory-safe") {
            slot := seat.slot
        }
        uint256 word = Slots.read(slot);
        vm.assertEq(Slots.rateOf(word), packed.rate, "rate");
        vm.assertEq(Slots.capacityOf(word), packed.capacity, "capacity");
        vm.assertEq(Slots.recordedUnitsOf(word), packed.recordedUnits, "units");
        vm.assertEq(Slots.recordedRoundOf(word), packed.recordedRound, "round");
        Slots.write(slot, Slots.withoutRecord(word));
        (packed.recordedUnits, packed.recordedRound) = (0, 0);
        vm.assertEq(abi.encode(seat), abi.encode(packed), "without its record");
    }
}
