// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../src/interfaces/IDisputeCourt.sol";
import {CourtTest} from "./utils/CourtTest.sol";
import {vm} from "./utils/Vm.sol";

/// @notice Attacks on the court that an audit played through, and what stops each.
contract CourtAttacksTest is CourtTest {
    /// @dev Node 1's operator has a friend, who challenges so that nobody else does.
    address internal constant FRIEND = address(0xF0E);

    function setUp() public override {
        super.setUp();
        fundFor(FRIEND, address(theCourt));
    }

    /// @dev Pay that is disputed shortly before it is free left before the case ended; the insurance paid instead.
    function test_DisputedCreditStaysUntilTheCaseEnds() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(10_000, 0);
        uint32[] memory nodeIds = new uint32[](1);
        nodeIds[0] = 1;
        market.markCredit(nodeIds);
        later(WINDOW - 1);
        vm.prank(FRIEND);
        uint256 caseId = theCourt.challengeAvailability(jobId, 0, proof);
        later(1);
        vm.prank(operator);
        vm.expectPartialRevert(InsufficientCredit.selector);
        market.withdraw(1, FULL, operator);
        market.distributePayments(nodeIds);
        vm.assertEq(creditOf(1), FULL);
        later(ANSWER / 2);
        theCourt.decide(caseId);
        finish(caseId);
        vm.assertEq(creditOf(1), 0);
        (,,,, uint128 insurance) = market.holdings();
        vm.assertTrue(insurance > 0, "the node paid all of it, and the pool only got more");
    }

    /// @dev A friend's availability case kept all others out until the window was over, and its bond came home.
    function test_AFriendsCaseShieldsNothing() external {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(10_000, 0);
        vm.prank(FRIEND);
        uint256 friendly = theCourt.challengeAvailability(jobId, 0, proof);
        show(friendly);
        // Others dispute the quality all the same ...
        uint256 honest = challengeQuality(requester, proof);
        // ... or contest what the friend does not.
        uint256 untouched = vm.snapshotState();
        vm.prank(requester);
        theCourt.contest(friendly);
        find(friendly, 0, 0, 0);
        finish(friendly);
        vm.assertEq(creditOf(1), 0);
        vm.revertToState(untouched);
        // Nobody contests: the friend's bond is gone for good, and there is no second case behind the first.
        find(honest, 1_000, 1_000, 1_000);
        finish(friendly);
        vm.assertEq(theCourt.owedTo(operator) + theCourt.owedTo(FRIEND), 0);
        vm.assertEq(theRegistry.insurance(), BOND);
        vm.warp(market.getRound(jobId, 0).settledAt + 1);
        vm.prank(FRIEND);
        vm.expectPartialRevert(IDisputeCourt.AlreadyDisputed.selector);
        theCourt.challengeAvailability(jobId, 0, proof);
    }

    function fault(uint64 round, bytes4 refusal) internal {
        IDisputeCourt.SignedReceipt memory one = signedReceipt(round, 1, UNITS, "one");
        IDisputeCourt.SignedReceipt memory other = signedReceipt(round, 1, UNITS, "other");
        if (refusal != 0) vm.expectPartialRevert(refusal);
        theCourt.proveReceiptFault(one, other);
    }

    /// @dev One stolen key drained the stake of all of the operator's nodes, for rounds that never were.
    function test_OneKeyCostsOneMinStake() external {
        for (uint64 round = 1e15; round < 1e15 + 3; ++round) {
            fault(round, IDisputeCourt.RoundOutOfReach.selector);
        }
        fault(0, 0);
        for (uint64 round = 1; round < 8; ++round) {
            fault(round, IDisputeCourt.AlreadyPunished.selector);
        }
        vm.assertEq(market.getOperator(operator).stake, 2 * MIN_STAKE);
    }

    /// @dev Two changes of keys put receipts that were signed before out of reach.
    function test_TwoRotationsDoNotEscape() external {
        IDisputeCourt.SignedReceipt memory one = signedReceipt(0, 1, UNITS, "one");
        IDisputeCourt.SignedReceipt memory other = signedReceipt(0, 1, UNITS, "other");
        rotate(1, 0x7777);
        rotate(1, 0x8888);
        theCourt.proveReceiptFault(one, other);
        vm.assertEq(market.getOperator(operator).stake, 2 * MIN_STAKE);
    }

    /// @dev Work that never was, recorded in front of the settlement, was paid half by everybody's silence.
    function test_SilencePaysNobody() external {
        uint256 caseId = openOmission();
        later(COMMIT);
        theCourt.decide(caseId);
        finish(caseId);
        vm.assertEq(creditOf(3), 0);
        vm.assertEq(theCourt.owedTo(operator), BOND, "the bond returns");
    }

    /// @dev Of two signers one scored falsely: both lost a share of their bonds, also the one that was right.
    function test_AnHonestSignerPaysNothingForTheOther() external {
        uint256 caseId = openQuality(10_000);
        find(caseId, 0, 0, 0);
        finish(caseId);
        vm.assertEq(bondOf(1), MIN_BOND);
        vm.assertEq(bondOf(2), MIN_BOND);
    }
}
