// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {CreditTest} from "./Withdraw.t.sol";
import {Market} from "./utils/Market.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract TermsTest is MarketTest {
    function setTerms(Terms memory terms) internal {
        vm.prank(timelock);
        market.setTerms(terms);
    }

    function expectOutOfBounds(Terms memory terms, uint256 value, uint256 min, uint256 max) internal {
        vm.expectRevert(abi.encodeWithSelector(TermOutOfBounds.selector, value, min, max));
        setTerms(terms);
    }

    function test_TheTimelockChangesThem_AndSaysHow() external {
        Terms memory terms = standardTerms();
        terms.minStake = 7;
        vm.expectEmit(address(market));
        emit TermsChanged(standardTerms(), terms);
        setTerms(terms);
        vm.assertEq(market.terms().minStake, 7);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, guardian));
        vm.prank(guardian);
        market.setTerms(terms);
    }

    function test_EachHasBounds() external {
        uint64 year = 365 days;
        Terms memory terms = standardTerms();
        terms.minStake = 0;
        expectOutOfBounds(terms, 0, 1, type(uint96).max);
        terms.minStake = uint128(type(uint96).max) + 1;
        expectOutOfBounds(terms, terms.minStake, 1, type(uint96).max);
        terms = standardTerms();
        terms.challengeWindow = 9;
        expectOutOfBounds(terms, 9, 10, year);
        terms.challengeWindow = year + 1;
        expectOutOfBounds(terms, year + 1, 10, year);
        terms = standardTerms();
        terms.disputeTime = 9;
        expectOutOfBounds(terms, 9, 10, year);
        terms = standardTerms();
        terms.exitNotice = WINDOW + DISPUTE - 1;
        expectOutOfBounds(terms, WINDOW + DISPUTE - 1, WINDOW + DISPUTE, year);
        terms = standardTerms();
        terms.unbondingTime = WINDOW + DISPUTE - 1;
        expectOutOfBounds(terms, WINDOW + DISPUTE - 1, WINDOW + DISPUTE, year);
        terms = standardTerms();
        terms.instantShare = 10_001;
        expectOutOfBounds(terms, 10_001, 0, 10_000);
        terms = Terms(1, 20, 20, 10, 10, 10_000);
        setTerms(terms);
    }

    function test_ADeploymentKeepsTheBounds_AndNeedsTokenAndOwner() external {
        Terms memory terms = standardTerms();
        terms.instantShare = 10_001;
        expectUndeployable(
            abi.encode(token, terms, timelock, guardian, address(this)),
            abi.encodeWithSelector(TermOutOfBounds.selector, 10_001, 0, 10_000)
        );
        terms = standardTerms();
        expectUndeployable(
            abi.encode(address(0), terms, timelock, guardian, address(this)),
            abi.encodeWithSelector(ZeroAddress.selector)
        );
        expectUndeployable(
            abi.encode(token, terms, address(0), guardian, address(this)),
            abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0))
        );
    }

    function expectUndeployable(bytes memory arguments, bytes memory reason) internal {
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
}

contract PeripheryTest is MarketTest {
    function test_TheDeployerConnectsOnce() external {
        vm.expectRevert(abi.encodeWithSelector(AlreadyConnected.selector));
        market.connect(stranger, stranger, stranger);
        bytes memory arguments = abi.encode(token, standardTerms(), timelock, guardian, address(this));
        Market fresh = Market(vm.deployCode("ComputeMarket.sol:ComputeMarket", arguments));
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, stranger));
        vm.prank(stranger);
        fresh.connect(registry, court, coordinator);
        vm.expectRevert(abi.encodeWithSelector(ZeroAddress.selector));
        fresh.connect(registry, address(0), coordinator);
        vm.expectEmit(address(fresh));
        emit PeripheryChanged(registry, court);
        fresh.connect(registry, court, coordinator);
        vm.assertEq(fresh.registry(), registry);
        vm.assertEq(fresh.court(), court);
        vm.assertEq(fresh.coordinator(), coordinator);
    }

    function test_AfterwardsOnlyTheTimelock() external {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(this)));
        market.setPeriphery(stranger, stranger);
        vm.startPrank(timelock);
        market.setPeriphery(stranger, address(0x99));
        market.setGuardian(stranger);
        vm.expectEmit(address(market));
        emit CoordinatorChanged(coordinator, stranger);
        market.setCoordinator(stranger);
        vm.stopPrank();
        vm.assertEq(market.coordinator(), stranger);
        vm.assertEq(market.registry(), stranger);
        vm.assertEq(market.court(), address(0x99));
        vm.assertEq(market.guardian(), stranger);
    }

    /// @dev On its own the second half of the code is nobody's, and empty.
    function test_BothHalvesFitEveryChain() external view {
        vm.assertLe(address(market).code.length, 24_576, "EIP-170");
        bytes memory creation = vm.getCode("ComputeMarket.sol:ComputeMarket");
        vm.assertLe(creation.length + 10 * 32, 49_152, "EIP-3860");
        bytes memory half = vm.getCode("MarketAccounts.sol:MarketAccounts");
        vm.assertLe(half.length, 24_576 + 1_000, "EIP-170, with what a constructor adds");
    }

    function test_ItSaysWhatItIs() external view {
        vm.assertEq(address(market.token()), address(token));
        vm.assertEq(market.owner(), timelock);
        (, string memory name, string memory version, uint256 chainId, address contract_,,) =
            market.eip712Domain();
        vm.assertEq(name, "HyperGPU");
        vm.assertEq(version, "1");
        vm.assertEq(chainId, block.chainid);
        vm.assertEq(contract_, address(market));
    }

    function test_WhatItDoesNotKnowIsRefused() external {
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 1));
        market.getNode(1);
        vm.expectRevert(abi.encodeWithSelector(UnknownNode.selector, 1));
        market.getNodeMetrics(1);
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 0));
        market.getJob(0);
        vm.assertEq(market.getSeat(1, type(uint32).max).capacity, 0);
        (bool success,) = address(market).call(hex"12345678");
        vm.assertFalse(success);
        (success,) = address(market).call{value: 0}("");
        vm.assertFalse(success);
    }
}

contract BeginEpochTest is MarketTest {
    function test_TheRegistryBeginsEpochs() external {
        delete attestorKeys;
        attestorKeys.push(0xB1);
        vm.expectEmit(address(market));
        emit EpochBegun(2, attestors(), 1);
        vm.prank(registry);
        vm.assertEq(market.beginEpoch(attestors(), 1), 2);
        (uint32 epoch, address[] memory members, uint8 quorum) = market.getAttestors();
        vm.assertEq(epoch, 2);
        vm.assertEq(members.length, 1);
        vm.assertEq(members[0], vm.addr(0xB1));
        vm.assertEq(quorum, 1);
        (members,,) = market.getEpoch(1);
        vm.assertEq(members.length, 3);
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, timelock));
        vm.prank(timelock);
        market.beginEpoch(members, 2);
    }

    function expectRefused(address[] memory members, uint8 quorum, bytes memory reason) internal {
        vm.expectRevert(reason);
        vm.prank(registry);
        market.beginEpoch(members, quorum);
    }

    function test_AQuorumIsMoreThanHalf() external {
        bytes4 reason = InvalidQuorum.selector;
        expectRefused(attestors(), 0, abi.encodeWithSelector(reason, 3, 0, 16));
        expectRefused(attestors(), 1, abi.encodeWithSelector(reason, 3, 1, 16));
        expectRefused(attestors(), 4, abi.encodeWithSelector(reason, 3, 4, 16));
        expectRefused(new address[](0), 0, abi.encodeWithSelector(reason, 0, 0, 16));
        expectRefused(new address[](17), 9, abi.encodeWithSelector(reason, 17, 9, 16));
        expectRefused(new address[](2), 1, abi.encodeWithSelector(reason, 2, 1, 16));
    }

    function test_NobodyTwice_AndNotNobody() external {
        address[] memory list = attestors();
        list[2] = list[0];
        expectRefused(list, 2, abi.encodeWithSelector(DuplicateAttestor.selector, list[0]));
        list[2] = address(0);
        expectRefused(list, 2, abi.encodeWithSelector(ZeroAddress.selector));
    }
}

contract PauseTest is CreditTest {
    function test_OnlyTheGuardian_AndItEndsByItself() external {
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, timelock));
        vm.prank(timelock);
        market.pause(true, true);
        uint64 until = time() + PAUSE;
        vm.expectEmit(address(market));
        emit Paused(until, 0);
        vm.prank(guardian);
        market.pause(true, false);
        vm.expectRevert(abi.encodeWithSelector(IsPaused.selector, until));
        this.post();
        earn(1, 1); // Settlement is not paused.
        vm.warp(until);
        this.post();
    }

    function post() external {
        postJob();
    }

    function test_NotAgainBeforeAsMuchTimeHasPassed() external {
        vm.startPrank(guardian);
        market.pause(false, true);
        uint64 rested = time() + 2 * PAUSE;
        vm.warp(rested - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, rested));
        market.pause(false, true);
        market.pause(true, false); // The other kind is rested.
        vm.warp(rested);
        market.pause(false, true);
        vm.stopPrank();
    }

    function test_ItCanEndEarly_AndThenRests() external {
        pauseSettlement();
        later(100);
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, stranger));
        vm.prank(stranger);
        market.unpause();
        vm.expectEmit(address(market));
        emit Unpaused();
        vm.prank(timelock);
        market.unpause();
        earn(1, 1);
        (, uint64 settlement) = market.pausedUntil();
        vm.assertEq(settlement, time());
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, time() + PAUSE));
        this.pauseNow();
    }

    function pauseNow() external {
        pauseSettlement();
    }

    function test_APauseOfSettlementIsNoNotice() external {
        vm.prank(requester);
        market.requestExit(jobId);
        uint64 exitAt = time() + EXIT_NOTICE;
        later(EXIT_NOTICE / 2);
        pauseSettlement();
        vm.warp(exitAt + PAUSE - 1);
        vm.assertEq(market.getJob(jobId).exitAvailableAt, exitAt + PAUSE);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, exitAt + PAUSE));
        vm.prank(requester);
        market.exitJob(jobId);
        later(1);
        vm.prank(requester);
        market.exitJob(jobId);
    }

    function test_APauseBeforeTheNoticeDoesNotCount() external {
        pauseSettlement();
        later(PAUSE + 5);
        vm.prank(requester);
        market.requestExit(jobId);
        vm.assertEq(market.getJob(jobId).exitAvailableAt, time() + EXIT_NOTICE);
    }

    function test_MoneyGoesOutDuringAPause() external {
        earn(1, 50);
        uint256 other = postJob();
        vm.prank(operator);
        market.addStake(10);
        vm.prank(operator);
        market.requestUnstake(10);
        later(UNBONDING - EXIT_NOTICE);
        vm.prank(requester);
        market.requestExit(jobId);
        later(EXIT_NOTICE);
        vm.prank(guardian);
        market.pause(true, true);
        close(other);
        vm.prank(requester);
        market.exitJob(jobId);
        withdraw(1, 50e6);
        vm.prank(operator);
        market.unstake();
        checkHoldings();
    }
}
