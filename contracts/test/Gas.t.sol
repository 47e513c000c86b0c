// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

/// @notice What settlement costs, in snapshots/ (whole transactions, by Ethereum's prices, three attestors). The
/// tests fail when it grows; run with FORGE_SNAPSHOT_CHECK=false to write new figures. `First` is each node's
/// first payment, which fills an empty storage slot. Monad's prices are in docs/benchmarks (settlement-gas).
/// forge-config: default.isolate = true
contract GasTest is MarketTest {
    uint256 internal constant GOAL_PER_RECEIPT = 21_000; // At 100 receipts.

    function test_SettleRoundOf1() external {
        measure(1, "settleRound, 1 receipt");
    }

    function test_SettleRoundOf10() external {
        measure(10, "settleRound, 10 receipts");
    }

    function test_SettleRoundOf100() external {
        vm.assertLe(measure(100, "settleRound, 100 receipts"), 100 * GOAL_PER_RECEIPT, "goal");
    }

    function test_SettleRoundOf300() external {
        measure(300, "settleRound, 300 receipts");
    }

    function test_SubmitContribution() external {
        uint256 jobId = jobWithNodes(2);
        settle(jobId, true, abi.encodePacked(receipt(jobId, 0, 1, 1000), receipt(jobId, 0, 2, 1000)));
        market.submitContribution(jobId, 1, BASE, receipt(jobId, 1, 1, 1000));
        vm.snapshotGasLastCall("submitContribution, first of a round");
        market.submitContribution(jobId, 1, BASE, receipt(jobId, 1, 2, 1000));
        vm.snapshotGasLastCall("submitContribution");
        bytes memory both = abi.encodePacked(receipt(jobId, 1, 1, 1000), receipt(jobId, 1, 2, 1000));
        settle(jobId, true, both);
        vm.snapshotGasLastCall("settleRound, 2 recorded receipts");
    }

    /// @return gas Of the second round: what nodes cost that were paid before.
    function measure(uint32 count, string memory name) internal returns (uint256 gas) {
        uint256 jobId = jobWithNodes(count);
        settleAll(jobId, 0, count);
        vm.snapshotGasLastCall(string.concat(name, ", first"));
        settleAll(jobId, 1, count);
        return vm.snapshotGasLastCall(name);
    }

    function settleAll(uint256 jobId, uint64 round, uint32 count) internal {
        bytes memory receipts;
        bytes[] memory scores = new bytes[](3);
        for (uint32 nodeId = 1; nodeId <= count; ++nodeId) {
            receipts = abi.encodePacked(receipts, receipt(jobId, round, nodeId, 1000));
            for (uint16 i = 0; i < 3; ++i) {
                scores[i] = abi.encodePacked(scores[i], uint16(9_500 - i * nodeId));
            }
        }
        BatchHeader memory header = nextBatch(jobId, true);
        market.settleRound(header, receipts, attest(header, receipts, scores, 7));
    }
}
