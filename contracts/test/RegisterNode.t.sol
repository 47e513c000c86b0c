// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract RegisterNodeTest is MarketTest {
    address internal immutable operator = vm.addr(OPERATOR);
    address internal immutable hotKey = vm.addr(HOT + 1);

    function setUp() public override {
        super.setUp();
        fund(operator);
    }

    function test_GivenStakeAndPossession_ItAddsTheNode() external {
        bytes memory possession = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.expectEmit(address(market));
        emit NodeRegistered(1, operator, hotKey, FAR);
        vm.expectEmit(address(market));
        emit StakeAdded(operator, MIN_STAKE, MIN_STAKE);
        vm.prank(operator);
        uint32 nodeId = market.registerNode(hotKey, FAR, MIN_STAKE, possession);

        vm.assertEq(nodeId, 1);
        Node memory node = market.getNode(1);
        vm.assertEq(node.operator, operator);
        vm.assertEq(node.hotKey, hotKey);
        vm.assertEq(node.expiresAt, FAR);
        vm.assertEq(node.retiredAt, 0);
        vm.assertEq(market.nodeOfKey(hotKey), 1);
        vm.assertEq(market.delegationNonce(hotKey), 1);
        vm.assertEq(market.getOperator(operator).stake, MIN_STAKE);
        vm.assertEq(market.getOperator(operator).activeNodes, 1);
        vm.assertEq(token.balanceOf(address(market)), MIN_STAKE);
    }

    function test_GivenStakeForTwo_TheSecondNodeNeedsNone() external {
        vm.startPrank(operator);
        market.addStake(2 * MIN_STAKE);
        vm.stopPrank();
        for (uint256 i = 1; i <= 2; ++i) {
            bytes memory possession = signDelegation(HOT + i, operator, vm.addr(HOT + i), FAR);
            vm.prank(operator);
            vm.assertEq(market.registerNode(vm.addr(HOT + i), FAR, 0, possession), i);
        }
    }

    function test_GivenTooLittleStake_ItReverts() external {
        bytes memory possession = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.expectRevert(abi.encodeWithSelector(InsufficientStake.selector, MIN_STAKE, MIN_STAKE - 1));
        vm.prank(operator);
        market.registerNode(hotKey, FAR, MIN_STAKE - 1, possession);
    }

    function test_GivenAKeyOfSomeoneElse_ItReverts() external {
        // The hot key agreed to work for `operator`, not for `stranger`.
        bytes memory possession = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.prank(stranger);
        vm.expectRevert(); // InvalidPossession, with whichever address the wrong digest recovers.
        market.registerNode(hotKey, FAR, MIN_STAKE, possession);
    }

    function test_GivenNoSignature_ItReverts() external {
        vm.expectRevert(abi.encodeWithSelector(InvalidPossession.selector, hotKey, address(0)));
        vm.prank(operator);
        market.registerNode(hotKey, FAR, MIN_STAKE, "");
    }

    function test_GivenTheZeroKey_WhichAnyBadSignatureRecovers_ItReverts() external {
        vm.expectRevert(abi.encodeWithSelector(ZeroAddress.selector));
        vm.prank(operator);
        market.registerNode(address(0), FAR, MIN_STAKE, "");
    }

    function test_GivenAnExpiredDelegation_ItReverts() external {
        uint64 expired = uint64(block.timestamp);
        bytes memory possession = signDelegation(HOT + 1, operator, hotKey, expired);
        vm.expectRevert(abi.encodeWithSelector(DelegationExpired.selector, expired));
        vm.prank(operator);
        market.registerNode(hotKey, expired, MIN_STAKE, possession);
    }

    function test_GivenAKeyInUse_ItReverts() external {
        register(OPERATOR);
        bytes memory possession = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.expectRevert(abi.encodeWithSelector(HotKeyTaken.selector, hotKey, 1));
        vm.prank(operator);
        market.registerNode(hotKey, FAR, MIN_STAKE, possession);
    }

    function test_GivenAReplayedPossession_ItReverts() external {
        bytes memory possession = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.prank(operator);
        market.registerNode(hotKey, FAR, MIN_STAKE, possession);
        vm.prank(operator);
        vm.expectRevert(); // InvalidPossession: the nonce has moved on.
        market.registerNode(hotKey, FAR, MIN_STAKE, possession);
    }

    function test_AnIdIsNeverUsedAgain() external {
        register(OPERATOR);
        vm.prank(operator);
        market.retireNode(1);
        vm.assertEq(register(OPERATOR), 2);
    }
}

contract DelegateHotKeyTest is MarketTest {
    uint256 internal constant FRESH = 0x3000;
    address internal immutable operator = vm.addr(OPERATOR);
    address internal immutable hotKey = vm.addr(HOT + 1);
    address internal immutable fresh = vm.addr(FRESH);

    function setUp() public override {
        super.setUp();
        register(OPERATOR);
    }

    function delegate(uint32 nodeId, uint256 key, uint64 expiresAt, address sender) internal {
        (bytes memory byOperator, bytes memory byKey) = bothSign(key, expiresAt);
        vm.prank(sender);
        market.delegateHotKey(nodeId, vm.addr(key), expiresAt, byOperator, byKey);
    }

    function bothSign(uint256 key, uint64 expiresAt) internal view returns (bytes memory, bytes memory) {
        return (
            signDelegation(OPERATOR, operator, vm.addr(key), expiresAt),
            signDelegation(key, operator, vm.addr(key), expiresAt)
        );
    }

    function test_AnyoneBringsARenewal() external {
        (bytes memory byOperator, bytes memory byKey) = bothSign(HOT + 1, FAR + 1);
        vm.expectEmit(address(market));
        emit HotKeyDelegated(1, hotKey, FAR + 1);
        vm.prank(stranger);
        market.delegateHotKey(1, hotKey, FAR + 1, byOperator, byKey);
        vm.assertEq(market.getNode(1).expiresAt, FAR + 1);
        vm.assertEq(market.nodeOfKey(hotKey), 1);
    }

    function test_TheOperatorReplacesAKey_AndTheOldOneIsFree() external {
        delegate(1, FRESH, FAR, operator);
        vm.assertEq(market.getNode(1).hotKey, fresh);
        vm.assertEq(market.nodeOfKey(fresh), 1);
        vm.assertEq(market.nodeOfKey(hotKey), 0);
    }

    function test_AStrangerPutsANewKeyOnNoNode() external {
        // Node 2 is the operator's too: the signatures alone would put node 1's new key on it.
        register(OPERATOR);
        (bytes memory byOperator, bytes memory byKey) = bothSign(FRESH, FAR);
        vm.expectRevert(abi.encodeWithSelector(NotOperator.selector, 2, stranger));
        vm.prank(stranger);
        market.delegateHotKey(2, fresh, FAR, byOperator, byKey);
    }

    function test_GivenAKeyOfAnotherNode_ItReverts() external {
        register(OPERATOR);
        (bytes memory byOperator, bytes memory byKey) = bothSign(HOT + 1, FAR);
        vm.expectRevert(abi.encodeWithSelector(HotKeyTaken.selector, hotKey, 1));
        vm.prank(operator);
        market.delegateHotKey(2, hotKey, FAR, byOperator, byKey);
    }

    function test_GivenASignatureOfAnotherWallet_ItReverts() external {
        bytes memory byStranger = signDelegation(0xBAD, operator, hotKey, FAR);
        bytes memory byKey = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.expectRevert(abi.encodeWithSelector(InvalidWalletSignature.selector, operator));
        market.delegateHotKey(1, hotKey, FAR, byStranger, byKey);
    }

    function test_GivenNoPossession_ItReverts() external {
        bytes memory byOperator = signDelegation(OPERATOR, operator, fresh, FAR);
        vm.prank(operator);
        vm.expectRevert(); // InvalidPossession: the operator's own signature is not the key's.
        market.delegateHotKey(1, fresh, FAR, byOperator, byOperator);
    }

    function test_ARenewalCountsOnce() external {
        (bytes memory byOperator, bytes memory byKey) = bothSign(HOT + 1, FAR - 1);
        market.delegateHotKey(1, hotKey, FAR - 1, byOperator, byKey);
        vm.expectRevert();
        market.delegateHotKey(1, hotKey, FAR - 1, byOperator, byKey);
    }

    function test_GivenAnExpiredOrUnknownOne_ItReverts() external {
        uint64 expired = uint64(block.timestamp);
        vm.expectRevert(abi.encodeWithSelector(DelegationExpired.selector, expired));
        market.delegateHotKey(1, hotKey, expired, "", "");
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 2));
        market.delegateHotKey(2, hotKey, FAR, "", "");
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 0));
        market.delegateHotKey(0, hotKey, FAR, "", "");
    }

    function test_AContractWalletSignsByERC1271() external {
        SigningWallet wallet = new SigningWallet(vm.addr(OPERATOR));
        token.mint(address(wallet), MIN_STAKE);
        bytes memory possession = signDelegation(FRESH, address(wallet), fresh, FAR);
        vm.startPrank(address(wallet));
        token.approve(address(market), MIN_STAKE);
        uint32 nodeId = market.registerNode(fresh, FAR, MIN_STAKE, possession);
        vm.stopPrank();

        bytes memory byOwner = signDelegation(OPERATOR, address(wallet), fresh, FAR + 1);
        bytes memory byKey = signDelegation(FRESH, address(wallet), fresh, FAR + 1);
        market.delegateHotKey(nodeId, fresh, FAR + 1, byOwner, byKey);
        vm.assertEq(market.getNode(nodeId).expiresAt, FAR + 1);
    }

    function test_AWalletUnderERC7702SignsWithItsKey() external {
        (bytes memory byOperator, bytes memory byKey) = bothSign(HOT + 1, FAR + 1);
        vm.etch(operator, abi.encodePacked(hex"ef0100", address(0xDE1E6A7E)));
        market.delegateHotKey(1, hotKey, FAR + 1, byOperator, byKey);
        vm.assertEq(market.getNode(1).expiresAt, FAR + 1);
    }
}

contract RetireNodeTest is MarketTest {
    address internal immutable operator = vm.addr(OPERATOR);

    function test_ItFreesTheStake_AndTheKeyEndsWithIt() external {
        register(OPERATOR);
        vm.expectEmit(address(market));
        emit NodeRetired(1);
        vm.prank(operator);
        market.retireNode(1);
        vm.assertEq(market.getOperator(operator).activeNodes, 0);
        vm.assertEq(market.getNode(1).retiredAt, block.timestamp);
        vm.assertEq(market.getNode(1).expiresAt, block.timestamp + UNBONDING);
        vm.prank(operator);
        market.requestUnstake(MIN_STAKE);
        vm.assertEq(market.getOperator(operator).unstakeAvailableAt, market.getNode(1).expiresAt);
    }

    function test_AnEarlierEndOfTheKeyStays() external {
        uint64 soon = uint64(block.timestamp) + 1 hours;
        fund(operator);
        bytes memory possession = signDelegation(HOT + 1, operator, vm.addr(HOT + 1), soon);
        vm.startPrank(operator);
        market.registerNode(vm.addr(HOT + 1), soon, MIN_STAKE, possession);
        market.retireNode(1);
        vm.stopPrank();
        vm.assertEq(market.getNode(1).expiresAt, soon);
    }

    function test_ARenewalOfARetiredNodeEndsWithItsStake() external {
        register(OPERATOR);
        vm.prank(operator);
        market.retireNode(1);
        uint64 end = uint64(block.timestamp) + UNBONDING;
        address hotKey = vm.addr(HOT + 1);
        bytes memory byOperator = signDelegation(OPERATOR, operator, hotKey, FAR);
        bytes memory byKey = signDelegation(HOT + 1, operator, hotKey, FAR);
        vm.expectEmit(address(market));
        emit HotKeyDelegated(1, hotKey, end);
        market.delegateHotKey(1, hotKey, FAR, byOperator, byKey);
        vm.assertEq(market.getNode(1).expiresAt, end);
    }

    function test_OnlyTheOperator_AndOnlyOnce() external {
        register(OPERATOR);
        vm.expectRevert(abi.encodeWithSelector(NotOperator.selector, 1, stranger));
        vm.prank(stranger);
        market.retireNode(1);
        vm.prank(operator);
        market.retireNode(1);
        vm.expectRevert(abi.encodeWithSelector(NodeIsRetired.selector, 1));
        vm.prank(operator);
        market.retireNode(1);
    }
}

/// @dev A contract wallet with one owner, by ERC-1271.
contract SigningWallet {
    address private immutable _owner;

    constructor(address owner) {
        _owner = owner;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        address signer =
            ecrecover(hash, uint8(signature[64]), bytes32(signature[0:32]), bytes32(signature[32:64]));
        return signer == _owner ? this.isValidSignature.selector : bytes4(0);
    }
}
