// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract StakeTest is MarketTest {
    address internal immutable operator = vm.addr(OPERATOR);

    function setUp() public override {
        super.setUp();
        register(OPERATOR);
    }

    function test_AddStake_MovesTheMoney() external {
        vm.expectEmit(address(market));
        emit StakeAdded(operator, 7, MIN_STAKE + 7);
        vm.prank(operator);
        market.addStake(7);
        vm.assertEq(token.balanceOf(address(market)), MIN_STAKE + 7);
    }

    function test_StakeOfAnActiveNodeIsBound() external {
        vm.expectRevert(abi.encodeWithSelector(InsufficientStake.selector, MIN_STAKE, MIN_STAKE - 1));
        vm.prank(operator);
        market.requestUnstake(1);
    }

    function test_GivenMoreThanTheStake_RequestUnstakeReverts() external {
        vm.expectRevert(abi.encodeWithSelector(InsufficientStake.selector, MIN_STAKE + 1, MIN_STAKE));
        vm.prank(operator);
        market.requestUnstake(MIN_STAKE + 1);
    }

    function test_StakeLeavesAfterUnbonding_AndOnce() external {
        uint64 availableAt = uint64(block.timestamp) + UNBONDING;
        vm.startPrank(operator);
        market.addStake(50);
        vm.expectEmit(address(market));
        emit UnstakeRequested(operator, 50, availableAt);
        market.requestUnstake(50);

        vm.warp(availableAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, availableAt));
        market.unstake();

        vm.warp(availableAt);
        uint256 before = token.balanceOf(operator);
        vm.expectEmit(address(market));
        emit Unstaked(operator, 50);
        market.unstake();
        vm.assertEq(token.balanceOf(operator) - before, 50);

        vm.expectRevert(abi.encodeWithSelector(NothingToUnstake.selector, operator));
        market.unstake();
        vm.stopPrank();
    }

    function test_ASecondRequestWaitsForAll() external {
        vm.startPrank(operator);
        market.addStake(50);
        market.requestUnstake(20);
        vm.warp(block.timestamp + UNBONDING - 1);
        market.requestUnstake(30);
        vm.stopPrank();
        Operator memory account = market.getOperator(operator);
        vm.assertEq(account.unbonding, 50);
        vm.assertEq(account.unstakeAvailableAt, vm.getBlockTimestamp() + UNBONDING);
    }

    function test_UnbondingStakeCoversNoNewNode() external {
        vm.startPrank(operator);
        market.addStake(MIN_STAKE);
        market.requestUnstake(MIN_STAKE);
        vm.stopPrank();
        bytes memory possession = signDelegation(HOT + 2, operator, vm.addr(HOT + 2), FAR);
        vm.expectRevert(abi.encodeWithSelector(InsufficientStake.selector, 2 * MIN_STAKE, MIN_STAKE));
        vm.prank(operator);
        market.registerNode(vm.addr(HOT + 2), FAR, 0, possession);
    }

    function test_ZeroIsNoAmount() external {
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.addStake(0);
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.requestUnstake(0);
    }

    function testFuzz_StakeIsConserved(uint128 added, uint128 removed) external {
        added = uint128(bound(added, 1, 1e17));
        removed = uint128(bound(removed, 1, added));
        uint256 before = token.balanceOf(operator);
        vm.startPrank(operator);
        market.addStake(added);
        market.requestUnstake(removed);
        vm.warp(block.timestamp + UNBONDING);
        market.unstake();
        vm.stopPrank();
        vm.assertEq(before - token.balanceOf(operator), added - removed);
        vm.assertEq(market.getOperator(operator).stake, MIN_STAKE + added - removed);
    }
}
