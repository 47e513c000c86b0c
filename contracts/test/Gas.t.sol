// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market} from "./utils/Market.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

/// @notice What settlement costs, written to snapshots/ (whole transactions, by Ethereum's prices; Monad's
/// differ, see MIP-8). One attestor. `First` is a node's first payment, which fills an empty storage slot.
/// forge-config: default.isolate = true
contract GasTest is MarketTest {
    function setUp() public override {
        super.setUp();
        address[] memory one = new address[](1);
        one[0] = vm.addr(attestorKeys[0]);
        vm.prank(admin);
        market.setAttestors(one, 1);
    }

    function test_SettleRoundOf4() external {
        measure(4, "settleRound, 4 receipts");
    }

    function test_SettleRoundOf100() external {
        measure(100, "settleRound, 100 receipts");
    }

    function measure(uint32 count, string memory name) internal {
        uint256 jobId = jobWithNodes(count);
        vm.assertGe(
            1_000_000 + 50_000 * uint256(count), round(jobId, 0, count, string.concat(name, ", first")), name
        );
        vm.assertGe(200_000 + 30_000 * uint256(count), round(jobId, 1, count, name), name);
    }

    function round(uint256 jobId, uint64 number, uint32 count, string memory name)
        internal
        returns (uint256 gas)
    {
        bytes memory receipts;
        for (uint32 nodeId = 1; nodeId <= count; ++nodeId) {
            receipts = abi.encodePacked(receipts, receipt(jobId, number, nodeId, 1000, 9_500));
        }
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = attest(jobId, number, 0, true, receipts)[0];
        market.settleRound(jobId, number, 0, true, BASE, receipts, EVIDENCE, signatures);
        gas = vm.snapshotGasLastCall(name);
    }
}
