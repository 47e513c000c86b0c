// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PackedReceipts} from "../src/libraries/PackedReceipts.sol";
import {vm} from "./utils/Vm.sol";

contract PackedReceiptsTest {
    function read(bytes calldata receipts, uint256 index)
        external
        pure
        returns (PackedReceipts.PackedReceipt memory)
    {
        return PackedReceipts.read(receipts, index);
    }

    function pack(PackedReceipts.PackedReceipt memory receipt) internal pure returns (bytes memory) {
        return
            abi.encodePacked(receipt.nodeId, receipt.units, receipt.artifact, receipt.r, receipt.s, receipt.v);
    }

    function testFuzz_EachReceiptReadsAsItWasPacked(PackedReceipts.PackedReceipt[] memory receipts)
        external
        view
    {
        bytes memory packed;
        for (uint256 i = 0; i < receipts.length; ++i) {
            packed = abi.encodePacked(packed, pack(receipts[i]));
        }
        vm.assertEq(packed.length, receipts.length * PackedReceipts.SIZE);
        for (uint256 i = 0; i < receipts.length; ++i) {
            vm.assertEq(abi.encode(this.read(packed, i)), abi.encode(receipts[i]), "read back differs");
        }
    }

    function testFuzz_PastTheEndReverts(uint8 length, uint256 index) external {
        vm.assume(index >= uint256(length) / PackedReceipts.SIZE);
        vm.expectRevert();
        this.read(new bytes(length), index);
    }
}
