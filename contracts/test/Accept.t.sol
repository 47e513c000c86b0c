// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRoundProofErrors} from "../src/interfaces/IRoundProofErrors.sol";
import {CreditTest} from "./Withdraw.t.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

contract AcceptTest is CreditTest {
    bytes internal constant QUALITIES = hex"2710"; // 10,000, of one receipt.

    function accept(uint64 round) internal {
        vm.prank(requester);
        market.acceptRound(jobId, round, "");
    }

    function settled(bytes memory receipts) internal pure returns (SettledBatch memory) {
        return SettledBatch(BASE, EVIDENCE, keccak256(receipts), keccak256(QUALITIES), 1, 3);
    }

    function one(bytes memory receipts) internal pure returns (SettledBatch[] memory batches) {
        batches = new SettledBatch[](1);
        batches[0] = settled(receipts);
    }

    /// @dev Of a round with one batch of one receipt.
    function release(uint64 round, uint32 nodeId, uint64 dollars) internal {
        bytes memory item = receipt(jobId, round, nodeId, dollars);
        market.releaseAccepted(jobId, round, one(item), 0, item, QUALITIES, 0);
    }

    function test_TheRequesterAccepts_OnceARoundIsSettled() external {
        vm.expectRevert(abi.encodeWithSelector(RoundNotSettled.selector, jobId, 0));
        market.acceptRound(jobId, 0, "");
        earn(1, 500);
        vm.expectRevert(abi.encodeWithSelector(InvalidWalletSignature.selector, requester));
        vm.prank(stranger);
        market.acceptRound(jobId, 0, "");
        vm.expectEmit(address(market));
        emit RoundAccepted(jobId, 0);
        accept(0);
        vm.assertTrue(market.getRound(jobId, 0).accepted);
        vm.expectRevert(abi.encodeWithSelector(AlreadyAccepted.selector, jobId, 0));
        market.acceptRound(jobId, 0, "");
    }

    function test_OrItsSignatureDoes_OfThisVeryContent() external {
        earn(1, 500);
        bytes32 digest = bytes32(market.getRound(jobId, 0).digest);
        bytes memory other = Signing.acceptance(market, REQUESTER, jobId, 0, ~digest);
        bytes memory good = Signing.acceptance(market, REQUESTER, jobId, 0, digest);
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(InvalidWalletSignature.selector, requester));
        market.acceptRound(jobId, 0, other);
        market.acceptRound(jobId, 0, good);
        vm.stopPrank();
    }

    function test_ReleasedCreditIsFreeAtOnce_AndOnce() external {
        earn(1, 500);
        accept(0);
        vm.expectEmit(address(market));
        emit CreditReleased(1, jobId, 0, 500e6);
        release(0, 1, 500);
        vm.assertEq(withdrawableOf(1), 500e6);
        vm.expectRevert(abi.encodeWithSelector(AlreadyReleased.selector, jobId, 0, 1));
        this.releaseAgain();
        withdraw(1, 500e6);
        vm.assertEq(advance(), 0);
        checkHoldings();
    }

    function releaseAgain() external {
        release(0, 1, 500);
    }

    function test_AMarkThatHoldsWhatWasReleasedFreesItNotAgain() external {
        earn(1, 500); // Round 0: released before the mark.
        accept(0);
        release(0, 1, 500);
        later(1);
        earn(1, 300); // Round 1: released while the mark that holds it waits.
        accept(1);
        market.markCredit(ids(1));
        release(1, 1, 300);
        later(1);
        earn(1, 200); // Round 2: released, not in the mark.
        earn(1, 900); // Round 3: neither.
        accept(2);
        release(2, 1, 200);
        withdraw(1, 1_000e6);
        vm.assertEq(advance(), 0);
        vm.assertEq(withdrawableOf(1), INSTANT);
        later(WINDOW - 1); // The mark matures: what it holds was free already.
        vm.assertEq(withdrawableOf(1), INSTANT);
        market.markCredit(ids(1)); // Holds rounds 2 and 3.
        later(WINDOW);
        vm.assertEq(withdrawableOf(1), 900e6);
        withdraw(1, 900e6);
        vm.assertEq(advance(), 0);
        checkHoldings();
    }

    function test_WhatWasReleasedUnderAMarkEndsWithIt_EvenIfNoneFollows() external {
        earn(1, 500);
        market.markCredit(ids(1));
        accept(0);
        release(0, 1, 500);
        vm.assertEq(withdrawableOf(1), 500e6);
        later(WINDOW);
        market.markCredit(ids(1)); // Matures; there is nothing new to mark.
        earn(1, 500);
        vm.assertEq(withdrawableOf(1), 500e6 + INSTANT);
    }

    function test_WhatAMaturedMarkHoldsIsFreeAlready() external {
        earn(1, 500);
        accept(0);
        market.markCredit(ids(1));
        later(WINDOW);
        vm.expectRevert(abi.encodeWithSelector(AlreadyFree.selector, jobId, 0, 1));
        this.releaseAgain();
    }

    /// @dev A batch before the last may have been credited before a mark that is older than the round's end.
    function test_AnEarlyBatchIsTakenForMarked_WhenItMayBe() external {
        earn(2, 1); // Round 0.
        later(1);
        bytes memory first = receipt(jobId, 1, 1, 500);
        bytes memory second = receipt(jobId, 1, 2, 1);
        settle(jobId, false, first);
        market.markCredit(ids(1));
        later(1);
        settle(jobId, true, second);
        accept(1);
        SettledBatch[] memory batches = new SettledBatch[](2);
        (batches[0], batches[1]) = (settled(first), settled(second));
        market.releaseAccepted(jobId, 1, batches, 0, first, QUALITIES, 0);
        vm.assertEq(withdrawableOf(1), 500e6);
        settle(jobId, true, receipt(jobId, 2, 1, 400));
        later(WINDOW);
        vm.assertEq(withdrawableOf(1), 500e6 + INSTANT); // Not 1,000 and more.
    }

    function test_OnlyWhatTheRoundHolds() external {
        earn(1, 500);
        bytes memory item = receipt(jobId, 0, 1, 500);
        vm.expectRevert(abi.encodeWithSelector(NotAccepted.selector, jobId, 0));
        market.releaseAccepted(jobId, 0, one(item), 0, item, QUALITIES, 0);
        accept(0);
        bytes memory more = receipt(jobId, 0, 1, 501);
        vm.expectRevert();
        market.releaseAccepted(jobId, 0, one(more), 0, more, QUALITIES, 0);
        vm.expectRevert(abi.encodeWithSelector(IRoundProofErrors.BatchNotShown.selector, 0));
        market.releaseAccepted(jobId, 0, one(item), 0, more, QUALITIES, 0);
        vm.expectRevert(abi.encodeWithSelector(IRoundProofErrors.BatchNotShown.selector, 0));
        market.releaseAccepted(jobId, 0, one(item), 0, item, hex"2711", 0);
        vm.expectRevert();
        market.releaseAccepted(jobId, 0, one(item), 0, item, QUALITIES, 1);
        vm.expectRevert();
        market.releaseAccepted(jobId, 0, one(item), 1, item, QUALITIES, 0);
    }
}
