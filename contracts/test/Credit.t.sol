// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Market, Token} from "./utils/Market.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract WithdrawTest is MarketTest {
    address internal immutable operator = vm.addr(OPERATOR);

    function setUp() public override {
        super.setUp();
        uint256 jobId = jobWithNodes(1);
        settle(jobId, true, receipt(jobId, 0, 1, 1000, 10_000));
    }

    function test_TheOperatorTakesCredit_InParts_AnywhereItLikes() external {
        uint256 before = token.balanceOf(stranger);
        vm.expectEmit(address(market));
        emit CreditWithdrawn(1, stranger, 2000);
        vm.startPrank(operator);
        market.withdraw(1, 2000, stranger);
        market.withdraw(1, 3000, stranger);
        vm.stopPrank();
        vm.assertEq(token.balanceOf(stranger) - before, 5000);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(market.getNodeMetrics(1).earned, 5000);
    }

    function test_MoreThanTheCreditIsRefused() external {
        vm.startPrank(operator);
        vm.expectRevert(abi.encodeWithSelector(InsufficientCredit.selector, 1, 5001, 5000));
        market.withdraw(1, 5001, operator);
        vm.expectRevert(abi.encodeWithSelector(InsufficientCredit.selector, 1, type(uint128).max, 5000));
        market.withdraw(1, type(uint128).max, operator);
        vm.stopPrank();
    }

    function test_OnlyTheOperator() external {
        address hotKey = vm.addr(HOT + 1);
        vm.expectRevert(abi.encodeWithSelector(NotOperator.selector, 1, hotKey));
        vm.prank(hotKey);
        market.withdraw(1, 1, hotKey);
    }

    function test_NoAmountAndNoRecipientAreRefused() external {
        vm.startPrank(operator);
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.withdraw(1, 0, operator);
        vm.expectRevert(abi.encodeWithSelector(ZeroAddress.selector));
        market.withdraw(1, 1, address(0));
        vm.expectRevert(abi.encodeWithSelector(InvalidRecipient.selector, address(market)));
        market.withdraw(1, 1, address(market));
        vm.stopPrank();
    }

    function test_CreditOutlivesRetirementAndTheKey() external {
        vm.prank(operator);
        market.retireNode(1);
        vm.warp(FAR + 1);
        vm.prank(operator);
        market.withdraw(1, 5000, operator);
        vm.assertEq(creditOf(1), 0);
    }
}

contract DistributePaymentsTest is MarketTest {
    function test_EachOperatorIsPaid_OnceOnly_AndEmptyCreditIsPassedOver() external {
        uint256 jobId = postJob();
        for (uint256 i = 0; i < 3; ++i) {
            take(jobId, OPERATOR + i, bidOf(jobId, register(OPERATOR + i)));
        }
        settle(
            jobId, true, abi.encodePacked(receipt(jobId, 0, 1, 10, 10_000), receipt(jobId, 0, 2, 20, 10_000))
        );
        uint256 first = token.balanceOf(vm.addr(OPERATOR));
        uint256 second = token.balanceOf(vm.addr(OPERATOR + 1));

        uint32[] memory nodeIds = new uint32[](4);
        (nodeIds[0], nodeIds[1], nodeIds[2], nodeIds[3]) = (1, 3, 2, 1);
        vm.prank(stranger);
        market.distributePayments(nodeIds);
        vm.assertEq(token.balanceOf(vm.addr(OPERATOR)) - first, 50);
        vm.assertEq(token.balanceOf(vm.addr(OPERATOR + 1)) - second, 100);
        vm.assertEq(creditOf(1) + creditOf(2) + creditOf(3), 0);
    }

    function test_AnUnknownNodeReverts() external {
        uint32[] memory nodeIds = new uint32[](1);
        nodeIds[0] = 9;
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 9));
        market.distributePayments(nodeIds);
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
        market = deployMarket();
        GreedyWallet wallet = new GreedyWallet(market);
        hooked.mint(address(wallet), 1_000);
        fund(requester);
        vm.prank(requester);
        market.createJob(SPEC, 500, RATE); // Someone else's money in the pot.

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
