// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market} from "./utils/Market.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

contract SeatingTest is MarketTest {
    uint256 internal jobId;
    uint48 internal constant MOST = 1_000;

    function setUp() public override {
        super.setUp();
        jobId = postJob();
        register(OPERATOR);
    }

    function seat(address by, uint48 maxUnits, bytes memory consent) internal {
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(OPERATOR, bidOf(jobId, 1));
        vm.prank(by);
        market.takeBids(jobId, bids, signatures, maxUnits, consent);
    }

    function consentOf(uint256 key, uint48 maxUnits, Bid memory bid) internal view returns (bytes memory) {
        Bid[] memory bids = new Bid[](1);
        bids[0] = bid;
        return Signing.seating(market, key, jobId, maxUnits, bids);
    }

    function expectNoConsent(uint48 maxUnits, bytes memory consent) internal {
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(OPERATOR, bidOf(jobId, 1));
        vm.expectRevert(abi.encodeWithSelector(InvalidConsent.selector, jobId));
        vm.prank(stranger);
        market.takeBids(jobId, bids, signatures, maxUnits, consent);
    }

    function test_TheCoordinatorConsents_AndAnyoneBringsIt() external {
        vm.expectEmit(address(market));
        emit BidTaken(jobId, 1, RATE, MOST);
        seat(stranger, MOST, consentOf(COORDINATOR, MOST, bidOf(jobId, 1)));
        vm.assertEq(market.getSeat(jobId, 1).capacity, MOST);
    }

    function test_SoDoesTheRequester() external {
        seat(stranger, MOST, consentOf(REQUESTER, MOST, bidOf(jobId, 1)));
        vm.assertEq(market.getSeat(jobId, 1).capacity, MOST);
    }

    function test_WhenOneOfThemSends_NoSignatureIsNeeded() external {
        uint256 snapshot = vm.snapshotState();
        seat(coordinator, MOST, "");
        vm.assertEq(market.getSeat(jobId, 1).capacity, MOST);
        vm.assertTrue(vm.revertToState(snapshot));
        seat(requester, MOST, "");
        vm.assertEq(market.getSeat(jobId, 1).capacity, MOST);
    }

    function test_ABidThatOffersLessKeepsItsCapacity() external {
        seat(coordinator, type(uint48).max, "");
        vm.assertEq(market.getSeat(jobId, 1).capacity, CAPACITY);
    }

    function test_AConsentIsForTheseBids_ThisJob_ThisMuch() external {
        expectNoConsent(MOST, "");
        expectNoConsent(MOST, consentOf(OPERATOR, MOST, bidOf(jobId, 1)));
        expectNoConsent(MOST + 1, consentOf(COORDINATOR, MOST, bidOf(jobId, 1)));
        expectNoConsent(MOST, consentOf(COORDINATOR, MOST, bidOf(jobId, 2)));
        Bid[] memory bids = new Bid[](2);
        (bids[0], bids[1]) = (bidOf(jobId, 1), bidOf(jobId, 1));
        expectNoConsent(MOST, Signing.seating(market, COORDINATOR, jobId, MOST, bids));
        bids = new Bid[](1);
        bids[0] = bidOf(jobId, 1);
        expectNoConsent(MOST, Signing.seating(market, COORDINATOR, jobId + 1, MOST, bids));
    }

    /// @dev A signature that recovers to nobody is not the word of a coordinator who was never named.
    function test_WithoutACoordinator_OnlyTheRequesterConsents() external {
        bytes memory arguments = abi.encode(token, standardTerms(), timelock, guardian, address(this));
        market = Market(vm.deployCode("ComputeMarket.sol:ComputeMarket", arguments));
        fund(requester);
        fund(vm.addr(OPERATOR));
        jobId = postJob();
        register(OPERATOR);
        vm.assertEq(market.coordinator(), address(0));
        expectNoConsent(MOST, "");
        expectNoConsent(MOST, new bytes(65));
        seat(requester, MOST, "");
    }

    function test_ASeatThatHoldsNothingIsRefused() external {
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(OPERATOR, bidOf(jobId, 1));
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        vm.prank(coordinator);
        market.takeBids(jobId, bids, signatures, 0, "");
    }

    function test_TheTimelockNamesAnotherCoordinator() external {
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", coordinator));
        vm.prank(coordinator);
        market.setCoordinator(stranger);
        vm.startPrank(timelock);
        vm.expectRevert(abi.encodeWithSelector(ZeroAddress.selector));
        market.setCoordinator(address(0));
        vm.expectEmit(address(market));
        emit CoordinatorChanged(coordinator, stranger);
        market.setCoordinator(stranger);
        vm.stopPrank();
        vm.assertEq(market.coordinator(), stranger);

        (Bid[] memory bids, bytes[] memory signatures) = signedBids(OPERATOR, bidOf(jobId, 1));
        vm.expectRevert(abi.encodeWithSelector(InvalidConsent.selector, jobId));
        vm.prank(coordinator);
        market.takeBids(jobId, bids, signatures, MOST, "");
        seat(stranger, MOST, "");
    }

    /// @dev The attack: a node seats itself with the highest capacity, and records work that never was for a round
    /// that is far away, so that all escrow is reserved and no honest round can be paid.
    function test_NoNodeReservesTheEscrow() external {
        uint32 evil = register(OPERATOR + 1);
        Bid memory bid = bidOf(jobId, evil);
        bid.capacity = type(uint48).max;
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(OPERATOR + 1, bid);
        vm.expectRevert(abi.encodeWithSelector(InvalidConsent.selector, jobId));
        vm.prank(vm.addr(OPERATOR + 1));
        market.takeBids(jobId, bids, signatures, type(uint48).max, "");

        // Even with a seat it was given, it reserves no more than one round's work.
        seat(coordinator, MOST, "");
        vm.prank(coordinator);
        market.takeBids(jobId, bids, signatures, MOST, "");
        bytes memory item = receipt(jobId, 0, evil, uint64(ESCROW / RATE));
        vm.expectRevert(abi.encodeWithSelector(UnitsAboveCapacity.selector, evil, ESCROW / RATE, MOST));
        market.submitContribution(jobId, 0, BASE, item);
        item = receipt(jobId, 9, evil, MOST);
        vm.expectRevert(abi.encodeWithSelector(RoundOutOfReach.selector, jobId, 9, 0, 8));
        market.submitContribution(jobId, 9, BASE, item);
        item = receipt(jobId, 8, evil, 0);
        vm.expectRevert(abi.encodeWithSelector(ZeroAmount.selector));
        market.submitContribution(jobId, 8, BASE, item);
        market.submitContribution(jobId, 8, BASE, receipt(jobId, 8, evil, MOST));
        vm.assertEq(market.getJob(jobId).reserved, uint128(MOST) * RATE);

        settle(jobId, true, receipt(jobId, 0, 1, MOST));
        vm.assertEq(creditOf(1), uint128(MOST) * RATE);
    }
}
