// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketTypes} from "../../src/interfaces/IComputeMarket.sol";
import {Market, Token} from "../utils/Market.sol";
import {vm} from "../utils/Vm.sol";
import {MarketHandler} from "./MarketHandler.sol";

/// @notice What must hold after any sequence of acts.
contract MarketInvariants {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    MarketHandler internal handler;
    Market internal market;
    Token internal token;

    function setUp() external {
        handler = new MarketHandler();
        handler.setUp();
        market = handler.theMarket();
        token = handler.theToken();
    }

    /// @dev Read by forge's invariant runner: who acts, and how. Settlement comes up more often than the rest.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](20);
        selectors[0] = handler.registerNode.selector;
        selectors[1] = handler.renewKey.selector;
        selectors[2] = handler.retireNode.selector;
        selectors[3] = handler.addStake.selector;
        selectors[4] = handler.requestUnstake.selector;
        selectors[5] = handler.unstake.selector;
        selectors[6] = handler.createJob.selector;
        selectors[7] = handler.fundJob.selector;
        selectors[8] = handler.takeBid.selector;
        selectors[9] = handler.closeJob.selector;
        selectors[10] = handler.requestExit.selector;
        selectors[11] = handler.exitJob.selector;
        selectors[12] = handler.settleRound.selector;
        selectors[13] = handler.settleHonestly.selector;
        selectors[14] = handler.bringTheSameAgain.selector;
        selectors[15] = handler.withdraw.selector;
        selectors[16] = handler.distributePayments.selector;
        selectors[17] = handler.passTime.selector;
        selectors[18] = handler.takeBid.selector;
        selectors[19] = handler.settleHonestly.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), selectors);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One function, so that one campaign serves all checks.
    function invariant_TheBooksAreInOrder() external view {
        checkTheMarketHoldsWhatItOwes();
        checkNoJobSpendsMoreThanItsEscrow();
        checkOnePaymentForEachJobRoundAndNode();
        checkEarningsAreTheSumOfPayments();
        checkActiveNodesAreCoveredByStake();
        checkARetiredKeyEndsWithItsStake();
    }

    /// @dev Every base unit that the market holds belongs to exactly one: an open job, a node or an operator.
    function checkTheMarketHoldsWhatItOwes() internal view {
        uint256 owed;
        for (uint256 jobId = 1; jobId <= market.jobCount(); ++jobId) {
            IComputeMarketTypes.Job memory job = market.getJob(jobId);
            if (!job.closed) owed += job.escrow - job.spent;
        }
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            owed += market.getNodeMetrics(nodeId).credit;
        }
        for (uint256 i = 0; i < handler.operatorCount(); ++i) {
            IComputeMarketTypes.Operator memory operator = market.getOperator(handler.operatorAt(i));
            owed += uint256(operator.stake) + operator.unbonding;
        }
        vm.assertEq(token.balanceOf(address(market)), owed, "balance differs from what is owed");
    }

    function checkNoJobSpendsMoreThanItsEscrow() internal view {
        for (uint256 jobId = 1; jobId <= market.jobCount(); ++jobId) {
            IComputeMarketTypes.Job memory job = market.getJob(jobId);
            vm.assertLe(job.spent, job.escrow, "spent above escrow");
            vm.assertEq(job.spent, handler.spent(jobId), "spent differs from the events");
        }
    }

    function checkOnePaymentForEachJobRoundAndNode() internal view {
        vm.assertLe(handler.mostPayments(), 1, "paid twice");
    }

    function checkEarningsAreTheSumOfPayments() internal view {
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            vm.assertEq(market.getNodeMetrics(nodeId).earned, handler.earned(nodeId), "earned");
        }
    }

    function checkActiveNodesAreCoveredByStake() internal view {
        for (uint256 i = 0; i < handler.operatorCount(); ++i) {
            IComputeMarketTypes.Operator memory operator = market.getOperator(handler.operatorAt(i));
            uint256 bound = uint256(market.minStake()) * operator.activeNodes;
            vm.assertGe(operator.stake, bound, "stake below what nodes bind");
        }
    }

    /// @dev A retired node's receipts stop settling no later than its stake can leave.
    function checkARetiredKeyEndsWithItsStake() internal view {
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            IComputeMarketTypes.Node memory node = market.getNode(nodeId);
            vm.assertEq(market.nodeOfKey(node.hotKey), nodeId, "a key of two nodes");
            if (node.retiredAt == 0) continue;
            vm.assertLe(node.expiresAt, node.retiredAt + market.unbondingTime(), "key outlives stake");
        }
    }

    /// @dev The acts must reach payments, or the rest is proved of an idle market.
    function afterInvariant() external view {
        vm.assertEq(handler.mostPayments(), 1, "nobody was paid");
    }
}
