// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market} from "./utils/Market.sol";
import {FeeToken} from "./utils/FeeToken.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {vm} from "./utils/Vm.sol";

contract CreateJobTest is MarketTest {
    function test_ItPullsTheEscrow() external {
        vm.expectEmit(address(market));
        emit JobCreated(1, requester, SPEC, ESCROW, RATE);
        vm.prank(requester);
        vm.assertEq(market.createJob(SPEC, ESCROW, RATE), 1);

        Job memory job = market.getJob(1);
        vm.assertEq(job.requester, requester);
        vm.assertEq(job.spec, SPEC);
        vm.assertEq(job.escrow, ESCROW);
        vm.assertEq(job.spent, 0);
        vm.assertEq(job.maxRate, RATE);
        vm.assertEq(job.round, 0);
        vm.assertFalse(job.closed);
        vm.assertEq(token.balanceOf(address(market)), ESCROW);
        vm.assertEq(postJob(), 2);
        vm.assertEq(market.jobCount(), 2);
    }

    function test_AJobWithoutFundsIsRefused() external {
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.createJob(SPEC, 0, RATE);
        vm.expectRevert();
        vm.prank(address(0xB0B)); // Has no tokens.
        market.createJob(SPEC, 1, RATE);
        vm.assertEq(market.jobCount(), 0);
    }

    function test_ATokenThatKeepsAFeeIsRefused() external {
        FeeToken taxed = new FeeToken();
        Market other = deployMarket(address(taxed));
        taxed.mint(requester, 1_000);
        vm.startPrank(requester);
        taxed.approve(address(other), 1_000);
        vm.expectRevert(abi.encodeWithSelector(IncorrectDeposit.selector, 100, 99));
        other.createJob(SPEC, 100, RATE);
        vm.stopPrank();
    }
}

contract FundJobTest is MarketTest {
    function test_AnyoneAddsToTheEscrow() external {
        postJob();
        vm.expectEmit(address(market));
        emit JobFunded(1, stranger, 5, ESCROW + 5);
        vm.prank(stranger);
        market.fundJob(1, 5);
        vm.assertEq(market.getJob(1).escrow, ESCROW + 5);
        vm.assertEq(token.balanceOf(address(market)), ESCROW + 5);
    }

    function test_GivenNoAmountOrNoJob_ItReverts() external {
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 1));
        market.fundJob(1, 5);
        postJob();
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.fundJob(1, 0);
    }

    function test_GivenAJobThatEnds_ItReverts() external {
        postJob();
        vm.prank(requester);
        market.requestExit(1);
        uint64 exitAt = uint64(block.timestamp) + EXIT_NOTICE;
        vm.expectRevert(abi.encodeWithSelector(JobIsExiting.selector, 1, exitAt));
        market.fundJob(1, 5);
        vm.warp(exitAt);
        vm.prank(requester);
        market.exitJob(1);
        vm.expectRevert(abi.encodeWithSelector(JobIsClosed.selector, 1));
        market.fundJob(1, 5);
    }

    function test_AnEscrowThatOverflowsIsRefused() external {
        postJob();
        token.mint(stranger, type(uint128).max);
        vm.prank(stranger);
        vm.expectRevert(); // Panic: arithmetic overflow.
        market.fundJob(1, type(uint128).max);
    }
}

contract TakeBidsTest is MarketTest {
    function setUp() public override {
        super.setUp();
        postJob();
        register(OPERATOR);
    }

    function test_ASignedBidBecomesASeat() external {
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(OPERATOR, bidOf(1, 1));
        vm.expectEmit(address(market));
        emit BidTaken(1, 1, RATE, CAPACITY);
        vm.prank(coordinator);
        market.takeBids(1, bids, signatures, MAX_UNITS, "");
        Seat memory seat = market.getSeat(1, 1);
        vm.assertEq(seat.rate, RATE);
        vm.assertEq(seat.capacity, CAPACITY);
        vm.assertEq(seat.recordedRound, 0);
    }

    function test_AStandingBidIsGoodForEachJob() external {
        postJob();
        take(1, OPERATOR, bidOf(0, 1));
        take(2, OPERATOR, bidOf(0, 1));
        vm.assertEq(market.getSeat(2, 1).capacity, CAPACITY);
    }

    function test_ManyBidsAreTakenTogether_OrNotAtAll() external {
        register(OPERATOR);
        Bid[] memory bids = new Bid[](2);
        bytes[] memory signatures = new bytes[](2);
        for (uint32 i = 0; i < 2; ++i) {
            (Bid[] memory one, bytes[] memory signature) = signedBids(OPERATOR, bidOf(1, i + 1));
            (bids[i], signatures[i]) = (one[0], signature[0]);
        }
        bytes memory good = signatures[1];
        signatures[1] = signatures[0];
        vm.expectRevert(abi.encodeWithSelector(InvalidWalletSignature.selector, vm.addr(OPERATOR)));
        vm.prank(coordinator);
        market.takeBids(1, bids, signatures, MAX_UNITS, "");
        vm.assertEq(market.getSeat(1, 1).capacity, 0);

        signatures[1] = good;
        vm.prank(coordinator);
        market.takeBids(1, bids, signatures, MAX_UNITS, "");
        vm.assertEq(market.getSeat(1, 2).capacity, CAPACITY);
    }

    function expectRefused(uint256 key, Bid memory bid, bytes memory reason) internal {
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(key, bid);
        vm.expectRevert(reason);
        vm.prank(coordinator);
        market.takeBids(1, bids, signatures, MAX_UNITS, "");
    }

    function test_ABidOfAnotherWalletIsRefused() external {
        bytes memory reason = abi.encodeWithSelector(InvalidWalletSignature.selector, vm.addr(OPERATOR));
        expectRefused(OPERATOR + 1, bidOf(1, 1), reason);
        expectRefused(HOT + 1, bidOf(1, 1), reason); // The hot key signs receipts, never prices.
    }

    function test_ABidForAnotherJobIsRefused() external {
        expectRefused(OPERATOR, bidOf(2, 1), abi.encodeWithSelector(BidForOtherJob.selector, 1, 2));
    }

    function test_AnExpiredBidIsRefused() external {
        Bid memory bid = bidOf(1, 1);
        bid.expiresAt = uint64(block.timestamp);
        expectRefused(OPERATOR, bid, abi.encodeWithSelector(BidExpired.selector, 1, block.timestamp));
    }

    function test_ABidAboveTheMostIsRefused() external {
        Bid memory bid = bidOf(1, 1);
        bid.rate = RATE + 1;
        expectRefused(OPERATOR, bid, abi.encodeWithSelector(RateAboveMax.selector, 1, RATE + 1, RATE));
    }

    function test_ABidOfNoWorkIsRefused() external {
        Bid memory bid = bidOf(1, 1);
        bid.capacity = 0;
        expectRefused(OPERATOR, bid, abi.encodeWithSelector(ZeroCapacity.selector, 1));
    }

    function test_ASeatIsTakenOnce() external {
        take(1, OPERATOR, bidOf(1, 1));
        Bid memory cheaper = bidOf(1, 1);
        cheaper.rate = 1;
        expectRefused(OPERATOR, cheaper, abi.encodeWithSelector(AlreadySeated.selector, 1, 1));
    }

    function test_ABidOfARetiredOrUnknownNodeIsRefused() external {
        expectRefused(OPERATOR, bidOf(1, 2), abi.encodeWithSelector(UnknownNode.selector, 2));
        uint32 huge = 1 << 24;
        expectRefused(OPERATOR, bidOf(1, huge), abi.encodeWithSelector(UnknownNode.selector, huge));
        vm.prank(vm.addr(OPERATOR));
        market.retireNode(1);
        expectRefused(OPERATOR, bidOf(1, 1), abi.encodeWithSelector(NodeIsRetired.selector, 1));
    }

    function test_ACancelledBidIsRefused_AndALaterOneIsNot() external {
        vm.expectEmit(address(market));
        emit BidsCancelled(1, 3);
        vm.prank(vm.addr(OPERATOR));
        market.cancelBids(1, 3);
        vm.assertEq(market.bidNonce(1), 3);
        expectRefused(OPERATOR, bidOf(1, 1), abi.encodeWithSelector(BidCancelled.selector, 1, 0, 3));
        Bid memory bid = bidOf(1, 1);
        bid.nonce = 3;
        take(1, OPERATOR, bid);
    }

    function test_CancelBids_OnlyUpwards_OnlyByTheOperator() external {
        vm.expectRevert(abi.encodeWithSelector(NotOperator.selector, 1, stranger));
        vm.prank(stranger);
        market.cancelBids(1, 3);
        vm.expectRevert(abi.encodeWithSelector(NonceNotHigher.selector, 1, 0, 0));
        vm.prank(vm.addr(OPERATOR));
        market.cancelBids(1, 0);
    }

    function test_AJobThatEndsTakesNoBids() external {
        vm.prank(requester);
        market.requestExit(1);
        bytes memory reason =
            abi.encodeWithSelector(JobIsExiting.selector, 1, uint64(block.timestamp) + EXIT_NOTICE);
        expectRefused(OPERATOR, bidOf(1, 1), reason);
    }

    function test_EachBidNeedsASignature() external {
        (Bid[] memory bids,) = signedBids(OPERATOR, bidOf(1, 1));
        vm.expectRevert(abi.encodeWithSelector(LengthMismatch.selector, 1, 0));
        vm.prank(coordinator);
        market.takeBids(1, bids, new bytes[](0), MAX_UNITS, "");
    }
}
