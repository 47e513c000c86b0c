// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Market, Token} from "./utils/Market.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

/// @dev One operator with two nodes and a stake of 200 tUSD, so that 100 can be withdrawn at once.
abstract contract CreditTest is MarketTest {
    uint128 internal constant INSTANT = MIN_STAKE; // Half of two nodes' stake.
    address internal immutable operator = vm.addr(OPERATOR);
    uint256 internal jobId;

    function setUp() public virtual override {
        super.setUp();
        jobId = postJob(10 * ESCROW, 1e6);
        for (uint256 i = 0; i < 2; ++i) {
            Bid memory bid = bidOf(jobId, register(OPERATOR));
            bid.rate = 1e6;
            take(jobId, OPERATOR, bid);
        }
    }

    /// @dev Credits `amount` whole dollars to a node, in a round of its own.
    function earn(uint32 nodeId, uint64 dollars) internal {
        settle(jobId, true, receipt(jobId, market.getJob(jobId).round, nodeId, dollars));
    }

    function withdraw(uint32 nodeId, uint128 amount) internal {
        vm.prank(operator);
        market.withdraw(nodeId, amount, operator);
    }

    function expectTooMuch(uint32 nodeId, uint128 amount, uint128 withdrawable) internal {
        vm.expectRevert(abi.encodeWithSelector(InsufficientCredit.selector, nodeId, amount, withdrawable));
        vm.prank(operator);
        market.withdraw(nodeId, amount, operator);
    }

    function advance() internal view returns (uint128) {
        return market.getOperator(operator).advance;
    }
}

/// @notice See Withdraw.tree.
contract WithdrawTest is CreditTest {
    function test_TheOperatorTakesCredit_InParts_AnywhereItLikes() external {
        earn(1, 50);
        uint256 before = token.balanceOf(stranger);
        vm.startPrank(operator);
        vm.expectEmit(address(market));
        emit CreditMarked(1, 50e6, time() + WINDOW);
        vm.expectEmit(address(market));
        emit CreditWithdrawn(1, stranger, 20e6);
        market.withdraw(1, 20e6, stranger);
        market.withdraw(1, 30e6, stranger);
        vm.stopPrank();
        vm.assertEq(token.balanceOf(stranger) - before, 50e6);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(market.getNodeMetrics(1).earned, 50e6);
        checkHoldings();
    }

    function test_AtOnce_UpToTheShareOfTheStake_OverAllNodes() external {
        earn(1, 90);
        earn(2, 90);
        vm.assertEq(withdrawableOf(1), 90e6);
        withdraw(1, 80e6);
        vm.assertEq(advance(), 80e6);
        vm.assertEq(withdrawableOf(1), 10e6);
        vm.assertEq(withdrawableOf(2), INSTANT - 80e6);
        vm.assertEq(market.getOperatorMetrics(operator).withdrawable, 20e6);
        expectTooMuch(2, 20e6 + 1, 20e6);
        withdraw(2, 20e6);
        expectTooMuch(1, 1, 0);
        vm.assertEq(advance(), INSTANT);
    }

    function test_UnbondingStakeCountsUntilItIsTakenOut() external {
        vm.startPrank(operator);
        market.addStake(100e6);
        market.requestUnstake(100e6);
        vm.stopPrank();
        earn(1, 500);
        vm.assertEq(withdrawableOf(1), 150e6);
    }

    function test_AMarkFreesWhatWasEarnedBeforeIt_AfterTheWindow() external {
        earn(1, 500);
        market.markCredit(ids(1));
        later(1);
        earn(1, 300);
        later(WINDOW - 2);
        vm.assertEq(withdrawableOf(1), INSTANT);
        later(1);
        vm.assertEq(withdrawableOf(1), 500e6 + INSTANT);
        expectTooMuch(1, 500e6 + INSTANT + 1, 500e6 + INSTANT);
        withdraw(1, 500e6 + INSTANT);
        vm.assertEq(advance(), INSTANT);
        later(WINDOW); // The withdrawal made a mark of its own.
        vm.assertEq(withdrawableOf(1), 200e6);
        withdraw(1, 200e6);
        vm.assertEq(advance(), 0);
        vm.assertEq(creditOf(1), 0);
        checkHoldings();
    }

    function test_OneMarkWaitsAtATime() external {
        earn(1, 10);
        market.markCredit(ids(1));
        later(WINDOW / 2);
        earn(1, 10);
        vm.recordLogs();
        market.markCredit(ids(1));
        vm.assertEq(vm.getRecordedLogs().length, 0);
        later(WINDOW / 2);
        vm.expectEmit(address(market));
        emit CreditMarked(1, 20e6, time() + WINDOW);
        market.markCredit(ids(1));
    }

    function test_AMaturedMarkEndsTheAdvance_ThatItCovers() external {
        earn(1, 500);
        withdraw(1, INSTANT);
        later(WINDOW);
        vm.assertEq(withdrawableOf(1), 400e6);
        market.markCredit(ids(1));
        vm.assertEq(advance(), 0);
        earn(2, 500);
        vm.assertEq(withdrawableOf(2), INSTANT);
    }

    function test_OnlyTheOperator() external {
        address hotKey = vm.addr(HOT + 1);
        vm.expectRevert(abi.encodeWithSelector(NotOperator.selector, 1, hotKey));
        vm.prank(hotKey);
        market.withdraw(1, 1, hotKey);
    }

    function test_NoAmountAndNoRecipientAreRefused() external {
        earn(1, 50);
        vm.startPrank(operator);
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.withdraw(1, 0, operator);
        vm.expectRevert(abi.encodeWithSelector(ZeroAddress.selector));
        market.withdraw(1, 1, address(0));
        vm.expectRevert(abi.encodeWithSelector(InvalidRecipient.selector, address(market)));
        market.withdraw(1, 1, address(market));
        vm.stopPrank();
    }

    function test_CreditOutlivesRetirementTheKeyAndAnyPause() external {
        earn(1, 50);
        vm.prank(operator);
        market.retireNode(1);
        vm.warp(FAR + GRACE);
        vm.prank(guardian);
        market.pause(true, true);
        withdraw(1, 50e6);
        vm.assertEq(creditOf(1), 0);
    }

    /// @dev Whatever the order of earning, waiting and withdrawing: never more than the credit, never more at
    /// risk than the share, and in the end all of it.
    function testFuzz_CreditIsConserved(
        uint64[8] memory earned,
        uint16[8] memory waits,
        uint128[8] memory wants
    ) external {
        uint256 sum;
        uint256 taken;
        for (uint256 i = 0; i < 8; ++i) {
            uint64 dollars = uint64(bound(earned[i], 0, 500));
            earn(1, dollars);
            sum += uint256(dollars) * 1e6;
            later(bound(waits[i], 0, WINDOW));
            uint128 withdrawable = withdrawableOf(1);
            uint128 amount = uint128(bound(wants[i], 0, withdrawable));
            if (amount != 0) withdraw(1, amount);
            taken += amount;
            vm.assertEq(creditOf(1), sum - taken);
            vm.assertLe(advance(), INSTANT, "too much at risk");
        }
        later(WINDOW);
        market.markCredit(ids(1));
        later(WINDOW);
        vm.assertEq(withdrawableOf(1), sum - taken);
        checkHoldings();
    }
}

contract WithdrawWithSignatureTest is CreditTest {
    function message(uint128 amount, uint128 fee) internal view returns (Withdrawal memory) {
        return Withdrawal({
            nodeId: 1, to: operator, amount: amount, fee: fee, nonce: market.withdrawalNonce(1), deadline: FAR
        });
    }

    function test_AnyoneBringsIt_ForAFee() external {
        earn(1, 50);
        Withdrawal memory withdrawal = message(50e6, 2e6);
        bytes memory signature = Signing.withdrawal(market, OPERATOR, withdrawal);
        uint256 own = token.balanceOf(operator);
        uint256 relayer = token.balanceOf(stranger);
        vm.expectEmit(address(market));
        emit CreditWithdrawn(1, operator, 48e6);
        vm.expectEmit(address(market));
        emit CreditWithdrawn(1, stranger, 2e6);
        vm.prank(stranger);
        market.withdrawWithSignature(withdrawal, signature);
        vm.assertEq(token.balanceOf(operator) - own, 48e6);
        vm.assertEq(token.balanceOf(stranger) - relayer, 2e6);
        vm.assertEq(market.withdrawalNonce(1), 1);
        vm.assertEq(creditOf(1), 0);
        checkHoldings();
    }

    function test_ItCountsOnce() external {
        earn(1, 50);
        Withdrawal memory withdrawal = message(10e6, 0);
        bytes memory signature = Signing.withdrawal(market, OPERATOR, withdrawal);
        market.withdrawWithSignature(withdrawal, signature);
        vm.expectRevert(abi.encodeWithSelector(InvalidNonce.selector, 1, 0));
        market.withdrawWithSignature(withdrawal, signature);
    }

    function expectRefused(Withdrawal memory withdrawal, uint256 key, bytes memory reason) internal {
        bytes memory signature = Signing.withdrawal(market, key, withdrawal);
        vm.expectRevert(reason);
        market.withdrawWithSignature(withdrawal, signature);
    }

    function test_WhatIsNotGoodIsRefused() external {
        earn(1, 50);
        bytes memory reason = abi.encodeWithSelector(InvalidWalletSignature.selector, operator);
        expectRefused(message(10e6, 0), HOT + 1, reason); // The hot key signs receipts, never payments.
        expectRefused(
            message(10e6, 10e6 + 1), OPERATOR, abi.encodeWithSelector(FeeAboveAmount.selector, 10e6 + 1, 10e6)
        );
        expectRefused(
            message(51e6, 0), OPERATOR, abi.encodeWithSelector(InsufficientCredit.selector, 1, 51e6, 50e6)
        );
        Withdrawal memory withdrawal = message(10e6, 0);
        withdrawal.deadline = time();
        expectRefused(withdrawal, OPERATOR, abi.encodeWithSelector(WithdrawalExpired.selector, time()));
        withdrawal = message(10e6, 0);
        withdrawal.nonce = 1;
        expectRefused(withdrawal, OPERATOR, abi.encodeWithSelector(InvalidNonce.selector, 0, 1));
    }

    function test_EachFieldIsSigned() external {
        earn(1, 50);
        earn(2, 50);
        bytes memory signature = Signing.withdrawal(market, OPERATOR, message(10e6, 1e6));
        for (uint256 i = 0; i < 5; ++i) {
            Withdrawal memory other = message(10e6, 1e6);
            if (i == 0) other.nodeId = 2;
            if (i == 1) other.to = stranger;
            if (i == 2) other.amount = 11e6;
            if (i == 3) other.fee = 2e6;
            if (i == 4) other.deadline -= 1;
            vm.expectRevert(abi.encodeWithSelector(InvalidWalletSignature.selector, operator));
            market.withdrawWithSignature(other, signature);
        }
    }
}

contract DistributePaymentsTest is CreditTest {
    function test_EachNodeIsPaidWhatItCanHave_AndEmptyCreditIsPassedOver() external {
        earn(1, 30);
        earn(2, 200);
        uint256 before = token.balanceOf(operator);
        uint32[] memory nodeIds = new uint32[](4);
        (nodeIds[0], nodeIds[1], nodeIds[2], nodeIds[3]) = (1, 1, 2, register(OPERATOR + 1));
        vm.prank(stranger);
        market.distributePayments(nodeIds);
        vm.assertEq(token.balanceOf(operator) - before, INSTANT);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(creditOf(2), 230e6 - INSTANT);
    }

    function test_AnUnknownNodeReverts() external {
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 9));
        market.distributePayments(ids(9));
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 9));
        market.markCredit(ids(9));
    }
}

contract UnstakeWithAdvanceTest is CreditTest {
    function test_WhatCoversTheAdvanceStays_UntilItIsFree() external {
        vm.startPrank(operator);
        market.retireNode(1);
        market.retireNode(2);
        market.requestUnstake(200e6);
        vm.stopPrank();
        later(UNBONDING - WINDOW + 1);
        earn(1, 40);
        withdraw(1, 40e6); // Covered by 80 of the stake.
        later(WINDOW - 1);
        uint256 before = token.balanceOf(operator);
        vm.prank(operator);
        market.unstake();
        vm.assertEq(token.balanceOf(operator) - before, 120e6);
        vm.assertEq(market.getOperator(operator).unbonding, 80e6);
        vm.expectRevert(abi.encodeWithSelector(NothingToUnstake.selector, operator));
        vm.prank(operator);
        market.unstake();

        later(1);
        market.markCredit(ids(1));
        vm.prank(operator);
        market.unstake();
        vm.assertEq(token.balanceOf(operator) - before, 200e6);
        vm.assertEq(market.getOperator(operator).unstakeAvailableAt, 0);
        checkHoldings();
    }
}

/// @dev A token that calls its recipient, as ERC-777 does, and a wallet that then asks again.
contract HookToken is ERC20("Hook", "HOOK") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (to.code.length != 0) {
            try GreedyWallet(to).onTokens() {} catch {}
        }
    }
}

contract GreedyWallet {
    Market private immutable _market;
    uint256 public refused;

    constructor(Market market) {
        _market = market;
    }

    function act(address target, bytes calldata data) external {
        (bool success,) = target.call(data);
        vm.assertTrue(success, "the wallet's own call failed");
    }

    function onTokens() external {
        try _market.unstake() {}
        catch (bytes memory reason) {
            if (bytes4(reason) == ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector) ++refused;
        }
    }
}

contract ReentrancyTest is MarketTest {
    function test_ARecipientThatCallsBackGetsNothingTwice() external {
        HookToken hooked = new HookToken();
        token = Token(address(hooked));
        market = deployMarket(address(hooked));
        GreedyWallet wallet = new GreedyWallet(market);
        hooked.mint(address(wallet), 1_000);
        fund(requester);
        postJob(500, RATE); // Someone else's money in the pot.

        wallet.act(address(hooked), abi.encodeCall(hooked.approve, (address(market), 1_000)));
        wallet.act(address(market), abi.encodeCall(market.addStake, (1_000)));
        wallet.act(address(market), abi.encodeCall(market.requestUnstake, (1_000)));
        vm.warp(block.timestamp + UNBONDING);
        uint256 before = wallet.refused();
        wallet.act(address(market), abi.encodeCall(market.unstake, ()));
        vm.assertEq(wallet.refused(), before + 1);
        vm.assertEq(hooked.balanceOf(address(wallet)), 1_000);
        vm.assertEq(hooked.balanceOf(address(market)), 500);
    }
}
