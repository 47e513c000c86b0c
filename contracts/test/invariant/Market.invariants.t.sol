// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketTypes} from "../../src/interfaces/IComputeMarket.sol";
import {Market, Token} from "../utils/Market.sol";
import {vm} from "../utils/Vm.sol";
import {MarketHandler} from "./MarketHandler.sol";

/// @notice What must hold after any sequence of acts.
contract MarketInvariants is IComputeMarketTypes {
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
        bytes4[28] memory acts = [
            handler.registerNode.selector,
            handler.renewKey.selector,
            handler.replaceKey.selector,
            handler.retireNode.selector,
            handler.addStake.selector,
            handler.requestUnstake.selector,
            handler.unstake.selector,
            handler.createJob.selector,
            handler.fundJob.selector,
            handler.takeBid.selector,
            handler.closeJob.selector,
            handler.requestExit.selector,
            handler.exitJob.selector,
            handler.settleRound.selector,
            handler.settleHonestly.selector,
            handler.settleHonestly.selector,
            handler.bringTheSameAgain.selector,
            handler.submitContribution.selector,
            handler.lapseRecord.selector,
            handler.disputeRecord.selector,
            handler.penalize.selector,
            handler.award.selector,
            handler.holdCredit.selector,
            handler.withdraw.selector,
            handler.distributePayments.selector,
            handler.collect.selector,
            handler.pause.selector,
            handler.passTime.selector
        ];
        bytes4[] memory selectors = new bytes4[](acts.length);
        for (uint256 i = 0; i < acts.length; ++i) {
            selectors[i] = acts[i];
        }
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
        checkJobsSpendAndReserveWithinTheirEscrow();
        checkOnePaymentForEachJobRoundAndNode();
        checkCreditFallsOnlyByWithdrawalOrSlashing();
        checkOperators();
        checkKeys();
    }

    /// @dev Every base unit that the market holds belongs to exactly one: an open job, a node, an operator, somebody
    /// who was harmed or proved it, or the insurance.
    function checkTheMarketHoldsWhatItOwes() internal view {
        (uint128 escrow, uint128 credit, uint128 stake, uint128 owed, uint128 insurance) = market.holdings();
        uint256 sum;
        for (uint256 jobId = 1; jobId <= market.jobCount(); ++jobId) {
            Job memory job = market.getJob(jobId);
            if (!job.closed) sum += job.escrow - job.spent;
        }
        vm.assertEq(sum, escrow, "escrow");
        sum = 0;
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            sum += market.getNodeMetrics(nodeId).credit;
        }
        vm.assertEq(sum, credit, "credit");
        sum = 0;
        for (uint256 i = 0; i < handler.operatorCount(); ++i) {
            Operator memory operator = market.getOperator(handler.operatorAt(i));
            sum += uint256(operator.stake) + operator.unbonding;
        }
        vm.assertEq(sum, stake, "stake");
        vm.assertEq(
            uint256(market.owedTo(handler.theRequester())) + market.owedTo(handler.theChallenger()),
            owed,
            "owed"
        );
        vm.assertEq(
            token.balanceOf(address(market)), uint256(escrow) + credit + stake + owed + insurance, "balance"
        );
    }

    function checkJobsSpendAndReserveWithinTheirEscrow() internal view {
        for (uint256 jobId = 1; jobId <= market.jobCount(); ++jobId) {
            Job memory job = market.getJob(jobId);
            vm.assertLe(uint256(job.spent) + job.reserved, job.escrow, "spent and reserved above escrow");
            uint256 reserved;
            uint256 records;
            for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
                Seat memory seat = market.getSeat(jobId, nodeId);
                if (seat.recordedRound == 0) continue;
                reserved += uint256(seat.recordedUnits) * seat.rate;
                ++records;
            }
            vm.assertEq(job.reserved, reserved, "reserved");
            vm.assertEq(job.records, records, "records");
            if (job.closed) vm.assertEq(records, 0, "a job ended with records");
        }
    }

    function checkOnePaymentForEachJobRoundAndNode() internal view {
        vm.assertLe(handler.mostPayments(), 1, "paid twice");
    }

    /// @dev By the events: what a node has is what it was credited, less what it withdrew and what was slashed.
    function checkCreditFallsOnlyByWithdrawalOrSlashing() internal view {
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            NodeMetrics memory metrics = market.getNodeMetrics(nodeId);
            vm.assertEq(metrics.earned, handler.earned(nodeId), "earned");
            vm.assertEq(metrics.credit, handler.earned(nodeId) - handler.taken(nodeId), "credit");
            vm.assertLe(metrics.withdrawable, metrics.credit, "withdrawable");
        }
    }

    function checkOperators() internal view {
        for (uint256 i = 0; i < handler.operatorCount(); ++i) {
            Operator memory operator = market.getOperator(handler.operatorAt(i));
            uint256 bound = uint256(market.terms().minStake) * operator.activeNodes;
            if (!handler.wasSlashed(handler.operatorAt(i))) {
                vm.assertGe(operator.stake, bound, "stake below what nodes bind");
                uint256 limit =
                    (uint256(operator.stake) + operator.unbonding) * market.terms().instantShare / 10_000;
                vm.assertLe(operator.advance, limit, "advance above its share");
            }
        }
    }

    /// @dev A retired node's receipts stop settling a grace period after its stake can leave.
    function checkKeys() internal view {
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            Node memory node = market.getNode(nodeId);
            vm.assertEq(market.nodeOfKey(node.hotKey), nodeId, "a key of two nodes");
            if (node.retiredAt == 0) continue;
            vm.assertLe(node.expiresAt, node.retiredAt + market.terms().unbondingTime, "key outlives stake");
        }
    }

    /// @dev Or the rest would be proved of an idle market. Chance alone cannot be asked for it: in a few runs of a
    /// hundred acts, none of them pays.
    function test_TheActsReachPayments() external {
        handler.settleHonestly(0, 100, true);
        vm.assertEq(handler.mostPayments(), 1, "nobody was paid");
        handler.bringTheSameAgain();
        vm.assertEq(handler.mostPayments(), 1, "paid twice");
    }
}
