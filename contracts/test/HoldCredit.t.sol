// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditTest} from "./Withdraw.t.sol";
import {vm} from "./utils/Vm.sol";

contract HoldCreditTest is CreditTest {
    function hold(uint128 amount) internal {
        vm.prank(court);
        market.holdCredit(1, amount);
    }

    function free(uint128 amount) internal {
        vm.prank(court);
        market.freeCredit(1, amount);
    }

    /// @dev The attack: credit that is marked early becomes free while a case about it runs. It would leave, and
    /// insurance and stake pay instead.
    function test_DisputedCreditIsThereAtTheEndOfItsCase() external {
        earn(1, 500);
        market.markCredit(ids(1));
        later(WINDOW - 1);
        vm.expectEmit(address(market));
        emit CreditHeld(1, 500e6, time() + DISPUTE);
        hold(500e6);
        later(1);
        vm.assertEq(withdrawableOf(1), 0);
        expectTooMuch(1, 1, 0);
        market.distributePayments(ids(1));
        vm.assertEq(creditOf(1), 500e6);

        later(DISPUTE - 2);
        vm.assertEq(withdrawableOf(1), 0);
        vm.expectEmit(address(market));
        emit CreditFreed(1, 500e6);
        free(500e6);
        vm.expectEmit(address(market));
        emit NodeSlashed(1, 1, jobId, 500e6, 0, 0, 0, 500e6, stranger, 0, 0);
        vm.prank(court);
        market.penalize(Penalty(1, jobId, 1, 500e6, 0, stranger, 0));
        vm.assertEq(market.getOperator(operator).stake, 2 * MIN_STAKE);
        checkHoldings();
    }

    function test_AcceptanceFreesNothingThatIsHeld() external {
        earn(1, 500);
        hold(500e6);
        vm.prank(requester);
        market.acceptRound(jobId, 0, "");
        bytes memory receipts = receipt(jobId, 0, 1, 500);
        bytes memory qualities = abi.encodePacked(uint16(10_000));
        SettledBatch[] memory batches = new SettledBatch[](1);
        batches[0] = SettledBatch(BASE, EVIDENCE, keccak256(receipts), keccak256(qualities), 1, 3);
        market.releaseAccepted(jobId, 0, batches, 0, receipts, qualities, 0);
        vm.assertEq(withdrawableOf(1), 0);
        free(500e6);
        vm.assertEq(withdrawableOf(1), 500e6);
    }

    function test_OnlyWhatIsHeldStays() external {
        earn(1, 500);
        market.markCredit(ids(1));
        later(WINDOW);
        hold(200e6);
        vm.assertEq(withdrawableOf(1), 300e6);
        vm.assertEq(market.getOperatorMetrics(operator).withdrawable, 300e6);
        withdraw(1, 300e6);
        expectTooMuch(1, 1, 0);
        free(200e6);
        withdraw(1, 200e6);
        checkHoldings();
    }

    function test_HoldsAddUp_AndEndByThemselves_DisputeTimeAfterTheLast() external {
        earn(1, 500);
        market.markCredit(ids(1));
        later(WINDOW);
        hold(100e6);
        later(DISPUTE - 1);
        hold(200e6);
        later(DISPUTE - 1);
        vm.assertEq(withdrawableOf(1), 200e6);
        later(1);
        vm.assertEq(withdrawableOf(1), 500e6);
        // A case that ends late takes nothing from the hold of another.
        hold(50e6);
        free(100e6);
        free(200e6);
        vm.assertEq(withdrawableOf(1), 450e6);
    }

    function test_ACourtThatIsReplacedHoldsNothing() external {
        earn(1, 500);
        market.markCredit(ids(1));
        later(WINDOW);
        hold(500e6);
        vm.prank(timelock);
        market.setPeriphery(registry, stranger);
        vm.assertEq(withdrawableOf(1), 500e6);
    }

    /// @dev Later pay is no way around a hold either: what was taken early stands for what is disputed.
    function test_WhatLeftBeforeTheHold_IsMissingAfterwards() external {
        earn(1, 100);
        withdraw(1, 100e6); // Against the stake.
        hold(100e6);
        vm.assertEq(withdrawableOf(1), 0);
        earn(1, 60);
        vm.assertEq(withdrawableOf(1), 0);
        vm.assertEq(market.getOperatorMetrics(operator).withdrawable, 0);
    }

    function test_OnlyTheCourt_AndNoMoreThanIsHeld() external {
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, timelock));
        vm.prank(timelock);
        market.holdCredit(1, 1);
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, timelock));
        vm.prank(timelock);
        market.freeCredit(1, 1);
        vm.startPrank(court);
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 9));
        market.holdCredit(9, 1);
        market.holdCredit(1, 1);
        vm.expectRevert();
        market.freeCredit(1, 2);
        vm.stopPrank();
    }
}
