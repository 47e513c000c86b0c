// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

abstract contract RecordTest is MarketTest {
    uint256 internal jobId;

    function setUp() public override {
        super.setUp();
        jobId = jobWithNodes(2);
    }

    function record(uint64 round, uint32 nodeId, uint64 units) internal {
        market.submitContribution(jobId, round, BASE, receipt(jobId, round, nodeId, units));
    }

    function expectRefused(uint64 round, bytes memory item, bytes memory reason) internal {
        vm.expectRevert(reason);
        market.submitContribution(jobId, round, BASE, item);
    }
}

contract SubmitContributionTest is RecordTest {
    function test_ItReservesTheMostThatTheReceiptCanCost() external {
        bytes memory item = receipt(jobId, 0, 1, 100);
        vm.expectEmit(address(market));
        emit ContributionRecorded(jobId, 0, 1, 100, BASE, artifactOf(1));
        vm.prank(stranger);
        market.submitContribution(jobId, 0, BASE, item);
        Job memory job = market.getJob(jobId);
        vm.assertEq(job.reserved, 500);
        vm.assertEq(job.records, 1);
        vm.assertEq(job.spent, 0);
        Seat memory seat = market.getSeat(jobId, 1);
        vm.assertEq(seat.recordedUnits, 100);
        vm.assertEq(seat.recordedRound, 1);
        vm.assertFalse(seat.claimed);
        vm.assertEq(creditOf(1), 0);
    }

    function test_OneAtATimeForEachSeat() external {
        record(0, 1, 100);
        expectRefused(
            1, receipt(jobId, 1, 1, 100), abi.encodeWithSelector(RecordExists.selector, jobId, 0, 1)
        );
        settle(jobId, true, receipt(jobId, 0, 1, 100));
        record(1, 1, 100);
        vm.assertEq(market.getJob(jobId).reserved, 500);
    }

    function test_RoundsMayOverlap_ButNotReachIntoThePast_OrFarAhead() external {
        settle(jobId, true, "");
        bytes4 reason = RoundOutOfReach.selector;
        expectRefused(0, receipt(jobId, 0, 1, 1), abi.encodeWithSelector(reason, jobId, 0, 1, 9));
        expectRefused(10, receipt(jobId, 10, 1, 1), abi.encodeWithSelector(reason, jobId, 10, 1, 9));
        record(9, 1, 1);
        record(1, 2, 1);
    }

    function test_ANodeThatTheRoundHasPassedIsRefused() external {
        settle(jobId, false, receipt(jobId, 0, 2, 1));
        bytes4 reason = AlreadyPaid.selector;
        expectRefused(0, receipt(jobId, 0, 2, 1), abi.encodeWithSelector(reason, jobId, 0, 2));
        expectRefused(0, receipt(jobId, 0, 1, 1), abi.encodeWithSelector(reason, jobId, 0, 1));
        record(1, 1, 1);
    }

    function test_TheReceiptMustBeGood() external {
        bytes memory item = receipt(jobId, 0, 1, 1);
        expectRefused(
            0, abi.encodePacked(item, item), abi.encodeWithSelector(InvalidReceiptsLength.selector, 218)
        );
        expectRefused(0, "", abi.encodeWithSelector(InvalidReceiptsLength.selector, 0));
        Signing.Work memory work = Signing.Work(jobId, 0, 1, 1, BASE, artifactOf(1));
        expectRefused(
            0,
            Signing.packedReceipt(market, OPERATOR, work),
            abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, vm.addr(OPERATOR))
        );
        expectRefused(
            0,
            receipt(jobId, 0, 1, CAPACITY + 1),
            abi.encodeWithSelector(UnitsAboveCapacity.selector, 1, CAPACITY + 1, CAPACITY)
        );
        register(OPERATOR);
        expectRefused(0, receipt(jobId, 0, 3, 1), abi.encodeWithSelector(NotSeated.selector, jobId, 3));
        vm.warp(FAR + GRACE);
        expectRefused(0, item, abi.encodeWithSelector(HotKeyExpired.selector, 1, FAR));
    }

    function test_TheEscrowMustCoverIt() external {
        uint256 small = postJob(14, RATE);
        take(small, OPERATOR, bidOf(small, 1));
        take(small, OPERATOR, bidOf(small, 2));
        market.submitContribution(small, 0, BASE, receipt(small, 0, 1, 2));
        bytes memory more = receipt(small, 0, 2, 1);
        vm.expectRevert(abi.encodeWithSelector(InsufficientEscrow.selector, small, 5, 4));
        market.submitContribution(small, 0, BASE, more);
    }

    function test_APauseOrAnEndRefusesIt() external {
        bytes memory item = receipt(jobId, 0, 1, 1);
        pauseSettlement();
        expectRefused(0, item, abi.encodeWithSelector(IsPaused.selector, time() + PAUSE));
        vm.prank(guardian);
        market.unpause();
        vm.prank(requester);
        market.requestExit(jobId);
        uint64 exitAt = time() + EXIT_NOTICE;
        vm.warp(exitAt);
        expectRefused(0, item, abi.encodeWithSelector(JobIsExiting.selector, jobId, exitAt));
        vm.warp(exitAt - 1);
        record(0, 1, 1);
    }
}

contract LapseRecordTest is RecordTest {
    function test_WhatTheRoundLeftOutLapsesAfterTheWindow() external {
        record(0, 1, 100);
        vm.expectRevert(abi.encodeWithSelector(RoundNotSettled.selector, jobId, 0));
        market.lapseRecord(jobId, 1);
        settle(jobId, true, receipt(jobId, 0, 2, 1));
        uint64 until = time() + WINDOW;
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, until));
        market.lapseRecord(jobId, 1);
        vm.expectRevert(abi.encodeWithSelector(RecordsPending.selector, jobId, 1));
        this.closeNow();

        vm.warp(until);
        vm.expectEmit(address(market));
        emit RecordLapsed(jobId, 0, 1);
        vm.prank(stranger);
        market.lapseRecord(jobId, 1);
        vm.assertEq(market.getJob(jobId).reserved, 0);
        vm.assertEq(market.getJob(jobId).records, 0);
        vm.assertEq(market.getSeat(jobId, 1).recordedRound, 0);
        vm.expectRevert(abi.encodeWithSelector(NoRecord.selector, jobId, 0, 1));
        market.lapseRecord(jobId, 1);
        close(jobId);
    }

    function closeNow() external {
        close(jobId);
    }

    /// @dev A node that records for a round which never comes keeps no requester from leaving.
    function test_AfterTheNotice_ARecordOfAnUnsettledRoundLapses() external {
        record(3, 1, 100);
        vm.prank(requester);
        market.requestExit(jobId);
        uint64 exitAt = time() + EXIT_NOTICE;
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, exitAt));
        market.lapseRecord(jobId, 1);
        vm.warp(exitAt);
        vm.expectRevert(abi.encodeWithSelector(RecordsPending.selector, jobId, 1));
        vm.prank(requester);
        market.exitJob(jobId);
        market.lapseRecord(jobId, 1);
        vm.prank(requester);
        market.exitJob(jobId);
        checkHoldings();
    }

    function test_AHeldRecordDoesNotLapse_UntilItIsDropped() external {
        record(0, 1, 100);
        vm.prank(court);
        vm.expectRevert(abi.encodeWithSelector(RoundNotSettled.selector, jobId, 0));
        market.holdRecord(jobId, 0, 1);
        settle(jobId, true, "");
        vm.expectEmit(address(market));
        emit RecordHeld(jobId, 0, 1);
        vm.prank(court);
        vm.assertEq(market.holdRecord(jobId, 0, 1), 100);
        vm.assertTrue(market.getSeat(jobId, 1).claimed);
        later(WINDOW);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, time() + DISPUTE));
        market.lapseRecord(jobId, 1);

        vm.expectEmit(address(market));
        emit RecordDropped(jobId, 0, 1);
        vm.prank(court);
        market.dropRecord(jobId, 1);
        vm.assertFalse(market.getSeat(jobId, 1).claimed);
        vm.assertEq(market.getJob(jobId).reserved, 0);
        record(1, 1, 100);
    }

    /// @dev Whatever becomes of the court: a requester's escrow is never locked for good.
    function test_AHeldRecordLapses_DisputeTimeLater() external {
        record(0, 1, 100);
        settle(jobId, true, "");
        later(WINDOW - 1);
        vm.prank(court);
        market.holdRecord(jobId, 0, 1);
        later(DISPUTE);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, time() + 1));
        market.lapseRecord(jobId, 1);
        later(1);
        market.lapseRecord(jobId, 1);
        vm.assertFalse(market.getSeat(jobId, 1).claimed);
        close(jobId);
        vm.prank(court);
        market.dropRecord(jobId, 1); // A late case ends all the same.
        checkHoldings();
    }

    function test_OnlyTheCourtHoldsAndDrops_WhatIsThere() external {
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, stranger));
        vm.prank(stranger);
        market.holdRecord(jobId, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(Unauthorized.selector, stranger));
        vm.prank(stranger);
        market.dropRecord(jobId, 1);
        record(1, 1, 100);
        settle(jobId, true, "");
        settle(jobId, true, "");
        vm.startPrank(court);
        vm.expectRevert(abi.encodeWithSelector(NoRecord.selector, jobId, 0, 1));
        market.holdRecord(jobId, 0, 1);
        market.dropRecord(jobId, 1); // Not held: it stays.
        vm.assertEq(market.getJob(jobId).records, 1);
        market.holdRecord(jobId, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(RecordIsHeld.selector, jobId, 1, 1));
        market.holdRecord(jobId, 1, 1);
        vm.stopPrank();
    }
}
