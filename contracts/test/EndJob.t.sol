// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract CloseJobTest is MarketTest {
    uint256 internal jobId;

    function setUp() public override {
        super.setUp();
        jobId = jobWithNodes(1);
        settle(jobId, true, receipt(jobId, 0, 1, 1000));
    }

    function test_TheRestIsRefunded() external {
        uint256 before = token.balanceOf(requester);
        Attestation[] memory signatures = attestClosure(jobId, 1, 5000);
        vm.expectEmit(address(market));
        emit JobClosed(jobId, 1, 5000, ESCROW - 5000);
        vm.prank(stranger);
        market.closeJob(jobId, 1, 5000, 1, signatures);
        vm.assertEq(token.balanceOf(requester) - before, ESCROW - 5000);
        vm.assertTrue(market.getJob(jobId).closed);
        vm.assertEq(creditOf(1), 5000);
    }

    function test_ItCountsOnce() external {
        Attestation[] memory signatures = attestClosure(jobId, 1, 5000);
        market.closeJob(jobId, 1, 5000, 1, signatures);
        vm.expectRevert(abi.encodeWithSelector(JobIsClosed.selector, jobId));
        market.closeJob(jobId, 1, 5000, 1, signatures);
    }

    function test_AnEarlierClosureIsWorthNothingAfterAnotherRound() external {
        Attestation[] memory signatures = attestClosure(jobId, 1, 5000);
        settle(jobId, true, "");
        vm.expectRevert(abi.encodeWithSelector(ClosureMismatch.selector, jobId, 2, 5000, 0));
        market.closeJob(jobId, 1, 5000, 1, signatures);
    }

    function test_AHalfSettledRoundKeepsTheJobOpen() external {
        settle(jobId, false, "");
        Attestation[] memory signatures = attestClosure(jobId, 1, 5000);
        vm.expectRevert(abi.encodeWithSelector(ClosureMismatch.selector, jobId, 1, 5000, 1));
        market.closeJob(jobId, 1, 5000, 1, signatures);
    }

    function test_AWrongSumIsRefused() external {
        Attestation[] memory signatures = attestClosure(jobId, 1, 4999);
        vm.expectRevert(abi.encodeWithSelector(ClosureMismatch.selector, jobId, 1, 5000, 0));
        market.closeJob(jobId, 1, 4999, 1, signatures);
    }

    function test_ItNeedsAQuorum_OfThisVeryJob() external {
        vm.expectRevert(abi.encodeWithSelector(QuorumNotReached.selector, 0, 2));
        market.closeJob(jobId, 1, 5000, 1, new Attestation[](0));
        Attestation[] memory foreign = attestClosure(jobId + 1, 1, 5000);
        vm.expectRevert();
        market.closeJob(jobId, 1, 5000, 1, foreign);
    }

    function test_AnAttestationOfARoundClosesNothing() external {
        Attestation[] memory signatures = attest(nextBatch(jobId, true), "", 0);
        vm.expectRevert();
        market.closeJob(jobId, 1, 5000, 1, signatures);
    }

    function test_AJobThatSpentAllRefundsNothing() external {
        uint256 small = postJob(50, RATE);
        take(small, OPERATOR, bidOf(small, 1));
        settle(small, true, receipt(small, 0, 1, 10));
        uint256 before = token.balanceOf(requester);
        market.closeJob(small, 1, 50, 1, attestClosure(small, 1, 50));
        vm.assertEq(token.balanceOf(requester), before);
    }
}

contract ExitJobTest is MarketTest {
    uint256 internal jobId;

    function setUp() public override {
        super.setUp();
        jobId = jobWithNodes(1);
    }

    function test_AfterNoticeTheRequesterLeaves_WithWhatIsLeft() external {
        uint64 availableAt = uint64(block.timestamp) + EXIT_NOTICE;
        vm.expectEmit(address(market));
        emit JobExitRequested(jobId, availableAt);
        vm.prank(requester);
        market.requestExit(jobId);
        settle(jobId, true, receipt(jobId, 0, 1, 1000)); // In flight when notice was given.

        vm.warp(availableAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, availableAt));
        vm.prank(requester);
        market.exitJob(jobId);

        vm.warp(availableAt);
        uint256 before = token.balanceOf(requester);
        vm.expectEmit(address(market));
        emit JobClosed(jobId, 1, 5000, ESCROW - 5000);
        vm.prank(requester);
        market.exitJob(jobId);
        vm.assertEq(token.balanceOf(requester) - before, ESCROW - 5000);

        vm.expectRevert(abi.encodeWithSelector(JobIsClosed.selector, jobId));
        vm.prank(requester);
        market.exitJob(jobId);
    }

    function test_WithoutNoticeNobodyLeaves() external {
        vm.expectRevert(abi.encodeWithSelector(ExitNotRequested.selector, jobId));
        vm.prank(requester);
        market.exitJob(jobId);
    }

    function test_OnlyTheRequester() external {
        vm.expectRevert(abi.encodeWithSelector(NotRequester.selector, jobId, stranger));
        vm.prank(stranger);
        market.requestExit(jobId);
        vm.prank(requester);
        market.requestExit(jobId);
        vm.warp(block.timestamp + EXIT_NOTICE);
        vm.expectRevert(abi.encodeWithSelector(NotRequester.selector, jobId, stranger));
        vm.prank(stranger);
        market.exitJob(jobId);
    }

    function test_NoticeIsGivenOnce() external {
        uint64 availableAt = uint64(block.timestamp) + EXIT_NOTICE;
        vm.startPrank(requester);
        market.requestExit(jobId);
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(JobIsExiting.selector, jobId, availableAt));
        market.requestExit(jobId);
        vm.stopPrank();
    }

    function test_DuringNoticeAttestorsMayCloseAtOnce() external {
        vm.prank(requester);
        market.requestExit(jobId);
        market.closeJob(jobId, 0, 0, 1, attestClosure(jobId, 0, 0));
        vm.assertTrue(market.getJob(jobId).closed);
    }
}
