// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditTest} from "./Withdraw.t.sol";
import {vm} from "./utils/Vm.sol";

/// @notice See Penalize.tree.
contract PenalizeTest is CreditTest {
    function fault(uint128 restitution, uint128 penalty, uint128 costs)
        internal
        view
        returns (Penalty memory)
    {
        return Penalty({
            caseId: 4,
            jobId: jobId,
            nodeId: 1,
            restitution: restitution,
            penalty: penalty,
            challenger: stranger,
            costs: costs
        });
    }

    function penalize(Penalty memory penalty) internal {
        vm.prank(court);
        market.penalize(penalty);
        checkHoldings();
    }

    function insurance() internal view returns (uint128 amount) {
        (,,,, amount) = market.holdings();
    }

    function test_ItTakesCreditFirst_AndGivesBackToTheEscrow() external {
        earn(1, 500);
        vm.expectEmit(address(market));
        emit NodeSlashed(1, 4, jobId, 160e6, 0, 0, 0, 100e6 + 22.5e6, stranger, 15e6, 22.5e6);
        penalize(fault(100e6, 60e6, 15e6));
        vm.assertEq(creditOf(1), 340e6);
        vm.assertEq(market.getNodeMetrics(1).faults, 1);
        vm.assertEq(market.getNodeMetrics(1).earned, 500e6);
        vm.assertEq(market.getOperator(operator).stake, 200e6);
        vm.assertEq(market.getJob(jobId).spent, 500e6 - 122.5e6);
        vm.assertEq(market.owedTo(stranger), 15e6);
        vm.assertEq(insurance(), 22.5e6);
    }

    function test_ThenStake_ThenWhatIsUnbonding() external {
        vm.startPrank(operator);
        market.addStake(50e6);
        market.requestUnstake(50e6);
        vm.stopPrank();
        earn(1, 30);
        earn(2, 70);
        vm.expectEmit(address(market));
        emit NodeSlashed(1, 4, jobId, 30e6, 200e6, 10e6, 0, 140e6 + 37.5e6, stranger, 25e6, 37.5e6);
        penalize(fault(140e6, 100e6, 25e6));
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(creditOf(2), 70e6); // The operator's other nodes keep what they earned.
        vm.assertEq(market.getOperator(operator).stake, 0);
        vm.assertEq(market.getOperator(operator).unbonding, 40e6);
        // 177.5 come back, of which the job had spent but 100: the rest is added to its escrow.
        vm.assertEq(market.getJob(jobId).spent, 0);
        vm.assertEq(market.getJob(jobId).escrow, 10 * ESCROW + 77.5e6);
    }

    function test_WhatLacks_LacksOfThePenalty() external {
        earn(1, 60);
        withdraw(1, 60e6);
        // 200 of stake are there, for 180 and 100.
        vm.expectEmit(address(market));
        emit NodeSlashed(1, 4, jobId, 0, 200e6, 0, 0, 180e6 + 7.5e6, stranger, 5e6, 7.5e6);
        penalize(fault(180e6, 100e6, 25e6));
    }

    function test_WhatLacksOfTheRestitution_TheInsurancePays_UpToATenthOfItself() external {
        earn(1, 100);
        penalize(fault(0, 100e6, 0)); // 50 to the insurance.
        vm.assertEq(insurance(), 50e6);
        vm.expectEmit(address(market));
        emit NodeSlashed(1, 4, jobId, 0, 200e6, 0, 4e6, 204e6, stranger, 0, 0);
        penalize(fault(204e6, 40e6, 10e6));
        vm.assertEq(insurance(), 46e6);
        vm.expectEmit(address(market)); // No more than a tenth of itself.
        emit NodeSlashed(1, 4, jobId, 0, 0, 0, 4.6e6, 4.6e6, stranger, 0, 0);
        penalize(fault(230e6, 40e6, 10e6));
        vm.assertEq(insurance(), 41.4e6);
        vm.assertEq(market.getNodeMetrics(1).faults, 3);
    }

    function test_AClosedJobsShareIsOwedToItsRequester() external {
        earn(1, 500);
        close(jobId);
        penalize(fault(100e6, 60e6, 15e6));
        vm.assertEq(market.owedTo(requester), 122.5e6);
        uint256 before = token.balanceOf(requester);
        vm.expectEmit(address(market));
        emit Collected(requester, 122.5e6);
        vm.prank(requester);
        market.collect();
        vm.assertEq(token.balanceOf(requester) - before, 122.5e6);
        checkHoldings();
        vm.expectRevert(abi.encodeWithSelector(NothingToCollect.selector, requester));
        vm.prank(requester);
        market.collect();
    }

    function test_AFaultIsBounded_WhateverTheCourtSays() external {
        earn(1, 500);
        uint128 most = MIN_STAKE + 30e6;
        vm.startPrank(court);
        vm.expectRevert(abi.encodeWithSelector(PenaltyAboveMax.selector, most + 1, most));
        market.penalize(fault(30e6, most + 1, 0));
        vm.expectRevert(abi.encodeWithSelector(PenaltyAboveMax.selector, most / 4 + 1, most / 4));
        market.penalize(fault(30e6, most, most / 4 + 1));
        market.penalize(fault(30e6, most, most / 4));
        vm.stopPrank();
    }

    function test_NoJobGetsBackMoreThanTheSeatCouldBePaid() external {
        uint128 most = uint128(CAPACITY) * 1e6;
        uint256 other = postJob();
        vm.startPrank(court);
        vm.expectRevert(abi.encodeWithSelector(PenaltyAboveMax.selector, most + 1, most));
        market.penalize(fault(most + 1, 0, 0));
        market.penalize(fault(most, 0, 0));
        Penalty memory elsewhere = fault(1, 0, 0);
        elsewhere.jobId = other;
        vm.expectRevert(abi.encodeWithSelector(PenaltyAboveMax.selector, 1, 0));
        market.penalize(elsewhere);
        elsewhere.restitution = 0; // A fault that cost the job nothing needs no seat.
        market.penalize(elsewhere);
        vm.stopPrank();
    }

    function test_OnlyTheCourt_AndWhatExists() external {
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, timelock));
        vm.prank(timelock);
        market.penalize(fault(1, 0, 0));
        Penalty memory penalty = fault(1, 0, 0);
        penalty.jobId = 9;
        vm.startPrank(court);
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 9));
        market.penalize(penalty);
        penalty = fault(1, 0, 0);
        penalty.nodeId = 9;
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 9));
        market.penalize(penalty);
        vm.stopPrank();
    }

    /// @dev Slashed credit counts as withdrawn: it cannot be withdrawn once more when its mark matures.
    function test_SlashedCreditIsNotFreedAgain() external {
        earn(1, 500);
        market.markCredit(ids(1));
        penalize(fault(400e6, 0, 0));
        vm.assertEq(withdrawableOf(1), 0); // 400 taken, none free: the stake covers no advance beyond.
        later(WINDOW);
        vm.assertEq(withdrawableOf(1), 100e6);
        withdraw(1, 100e6);
        earn(1, 500);
        vm.assertEq(withdrawableOf(1), INSTANT);
    }

    function testFuzz_NothingIsMadeOrLost(
        uint64 earned,
        uint128 stake,
        uint128 restitution,
        uint128 penalty,
        uint128 costs
    ) external {
        earn(1, uint64(bound(earned, 0, 500)));
        vm.prank(operator);
        market.addStake(uint128(bound(stake, 1, 500e6)));
        restitution = uint128(bound(restitution, 0, 1_500e6));
        penalty = uint128(bound(penalty, 0, MIN_STAKE + restitution));
        Job memory before = market.getJob(jobId);
        penalize(fault(restitution, penalty, uint128(bound(costs, 0, penalty / 4))));
        Job memory job = market.getJob(jobId);
        vm.assertLe(job.spent, job.escrow, "spent above escrow");
        vm.assertLe(market.owedTo(stranger), penalty / 4, "costs");
        vm.assertGe(uint256(job.escrow) - job.spent, uint256(before.escrow) - before.spent, "the job lost");
    }
}

contract AwardTest is CreditTest {
    function test_ItCreditsTheDifference() external {
        earn(1, 10);
        vm.expectEmit(address(market));
        emit CreditAwarded(4, jobId, 2, 0, 4e6);
        vm.prank(court);
        vm.assertEq(market.award(4, jobId, 0, 2, 10, 5_000, 9_000), 4e6);
        vm.assertEq(creditOf(2), 4e6);
        vm.assertEq(market.getJob(jobId).spent, 14e6);
        checkHoldings();
    }

    function test_OnlyWhatIsLeftAndNotReserved() external {
        uint256 small = postJob(10e6, 1e6);
        for (uint32 nodeId = 1; nodeId <= 2; ++nodeId) {
            Bid memory bid = bidOf(small, nodeId);
            bid.rate = 1e6;
            take(small, OPERATOR, bid);
        }
        settle(small, true, "");
        market.submitContribution(small, 1, BASE, receipt(small, 1, 2, 4));
        vm.prank(court);
        vm.assertEq(market.award(4, small, 0, 1, 10, 0, 10_000), 6e6);
        vm.assertEq(market.getJob(small).spent, 6e6);
        settle(small, true, receipt(small, 1, 2, 4));
        close(small);
        vm.prank(court);
        vm.assertEq(market.award(4, small, 0, 1, 10, 0, 10_000), 0);
        checkHoldings();
    }

    function test_OnlyTheCourt_OfASettledRound_AndOnlyMore() external {
        earn(1, 10);
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, stranger));
        vm.prank(stranger);
        market.award(4, jobId, 0, 2, 10, 0, 1);
        vm.startPrank(court);
        vm.expectRevert(abi.encodeWithSelector(RoundNotSettled.selector, jobId, 1));
        market.award(4, jobId, 1, 2, 10, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(NothingToAward.selector, 7, 7));
        market.award(4, jobId, 0, 2, 10, 7, 7);
        vm.expectRevert(abi.encodeWithSelector(QualityAboveMax.selector, 2, 10_001));
        market.award(4, jobId, 0, 2, 10, 7, 10_001);
        vm.expectRevert(abi.encodeWithSelector(UnitsAboveCapacity.selector, 2, CAPACITY + 1, CAPACITY));
        market.award(4, jobId, 0, 2, CAPACITY + 1, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(NotSeated.selector, jobId, 3));
        market.award(4, jobId, 0, 3, 10, 0, 1);
        vm.stopPrank();
    }
}
