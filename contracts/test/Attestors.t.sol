// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract SetAttestorsTest is MarketTest {
    function test_TheNewSetReplacesTheOldOne() external {
        uint256 jobId = jobWithNodes(1);
        bytes[] memory signatures = attest(jobId, 0, 0, true, "");
        address[] memory list = new address[](1);
        list[0] = vm.addr(0xB1);
        vm.expectEmit(address(market));
        emit AttestorsChanged(list, 1);
        vm.prank(admin);
        market.setAttestors(list, 1);

        (address[] memory current, uint8 quorum) = market.getAttestors();
        vm.assertEq(current.length, 1);
        vm.assertEq(current[0], list[0]);
        vm.assertEq(quorum, 1);
        vm.assertTrue(market.isAttestor(list[0]));
        vm.assertFalse(market.isAttestor(vm.addr(attestorKeys[0])));
        vm.expectRevert(abi.encodeWithSelector(NotAttestor.selector, vm.addr(attestorKeys[0])));
        market.settleRound(jobId, 0, 0, true, BASE, "", EVIDENCE, signatures);
    }

    function test_OnlyTheAdmin() external {
        address[] memory list = attestors();
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, stranger));
        vm.prank(stranger);
        market.setAttestors(list, 2);
    }

    function test_TheAdminHandsOverInTwoSteps() external {
        vm.prank(admin);
        market.transferOwnership(stranger);
        vm.assertEq(market.owner(), admin);
        vm.prank(stranger);
        market.acceptOwnership();
        vm.prank(stranger);
        market.setAttestors(attestors(), 3);
    }

    function expectRefused(address[] memory list, uint8 quorum, bytes memory reason) internal {
        vm.expectRevert(reason);
        vm.prank(admin);
        market.setAttestors(list, quorum);
    }

    function test_AQuorumIsBetweenOneAndAll() external {
        bytes4 reason = InvalidQuorum.selector;
        expectRefused(attestors(), 0, abi.encodeWithSelector(reason, 3, 0, 32));
        expectRefused(attestors(), 4, abi.encodeWithSelector(reason, 3, 4, 32));
        expectRefused(new address[](0), 0, abi.encodeWithSelector(reason, 0, 0, 32));
        expectRefused(new address[](33), 1, abi.encodeWithSelector(reason, 33, 1, 32));
    }

    function test_NobodyTwice_AndNotNobody() external {
        address[] memory list = attestors();
        list[2] = list[0];
        expectRefused(list, 2, abi.encodeWithSelector(DuplicateAttestor.selector, list[0]));
        list[2] = address(0);
        expectRefused(list, 2, abi.encodeWithSelector(ZeroAddress.selector));
        vm.assertTrue(market.isAttestor(vm.addr(attestorKeys[2])));
    }
}

contract ConstructorTest is MarketTest {
    function expectRefused(bytes memory arguments, bytes memory reason) internal {
        bytes memory code = abi.encodePacked(vm.getCode("ComputeMarket.sol:ComputeMarket"), arguments);
        address deployed;
        bytes memory answer;
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
            answer := mload(0x40)
            mstore(0x40, add(answer, add(0x20, returndatasize())))
            mstore(answer, returndatasize())
            returndatacopy(add(answer, 0x20), 0, returndatasize())
        }
        vm.assertEq(deployed, address(0));
        vm.assertEq(answer, reason, "another reason");
    }

    function test_WindowsHaveBounds() external {
        uint64 max = 365 days;
        bytes4 reason = InvalidDuration.selector;
        address[] memory list = attestors();
        expectRefused(
            abi.encode(token, MIN_STAKE, admin, list, uint8(2), 0, UNBONDING),
            abi.encodeWithSelector(reason, 0, max)
        );
        expectRefused(
            abi.encode(token, MIN_STAKE, admin, list, uint8(2), EXIT_NOTICE, max + 1),
            abi.encodeWithSelector(reason, max + 1, max)
        );
    }

    function test_TokenAndAdminMustBeThere() external {
        address[] memory list = attestors();
        expectRefused(
            abi.encode(address(0), MIN_STAKE, admin, list, uint8(2), EXIT_NOTICE, UNBONDING),
            abi.encodeWithSelector(ZeroAddress.selector)
        );
        expectRefused(
            abi.encode(token, MIN_STAKE, address(0), list, uint8(2), EXIT_NOTICE, UNBONDING),
            abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0))
        );
    }

    function test_ItSaysWhatItIs() external view {
        vm.assertEq(address(market.token()), address(token));
        vm.assertEq(market.minStake(), MIN_STAKE);
        vm.assertEq(market.exitNotice(), EXIT_NOTICE);
        vm.assertEq(market.unbondingTime(), UNBONDING);
        vm.assertEq(market.owner(), admin);
        (, string memory name, string memory version, uint256 chainId, address contract_,,) =
            market.eip712Domain();
        vm.assertEq(name, "HyperGPU");
        vm.assertEq(version, "1");
        vm.assertEq(chainId, block.chainid);
        vm.assertEq(contract_, address(market));
    }

    function test_UnknownIdsAreRefused() external {
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 1));
        market.getNode(1);
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 1));
        market.getNodeMetrics(1);
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 0));
        market.getJob(0);
        vm.assertEq(market.getSeat(1, type(uint32).max).capacity, 0);
    }
}
