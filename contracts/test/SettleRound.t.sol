// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketTypes} from "../src/interfaces/IComputeMarket.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

contract SettleRoundTest is MarketTest {
    uint256 internal constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141; // secp256k1
    uint256 internal jobId;

    function setUp() public override {
        super.setUp();
        jobId = jobWithNodes(3);
    }

    function expectRefused(bool last, bytes memory receipts, bytes memory reason) internal {
        bytes[] memory signatures = attest(jobId, 0, 0, last, receipts);
        vm.expectRevert(reason);
        market.settleRound(jobId, 0, 0, last, BASE, receipts, EVIDENCE, signatures);
        vm.assertEq(market.getJob(jobId).spent, 0);
    }

    /*//////////////////////////////////////////////////////////////
                                PAYMENT
    //////////////////////////////////////////////////////////////*/

    function test_ABatchIsCredited_ByUnitsRateAndQuality() external {
        bytes memory receipts =
            abi.encodePacked(receipt(jobId, 0, 1, 1000, 10_000), receipt(jobId, 0, 2, 999, 8_317));
        bytes[] memory signatures = attest(jobId, 0, 0, true, receipts);
        uint128 partial_ = 4154; // 999 * 5 * 0.8317 = 4154.3...
        vm.expectEmit(address(market));
        emit ContributionSettled(jobId, 0, 1, 1000, 10_000, 5000, artifactOf(1));
        vm.expectEmit(address(market));
        emit ContributionSettled(jobId, 0, 2, 999, 8_317, partial_, artifactOf(2));
        vm.expectEmit(address(market));
        emit RoundSettled(jobId, 0, 0, true, BASE, 2, 5000 + partial_, EVIDENCE);
        vm.prank(stranger);
        market.settleRound(jobId, 0, 0, true, BASE, receipts, EVIDENCE, signatures);

        vm.assertEq(creditOf(1), 5000);
        vm.assertEq(creditOf(2), partial_);
        vm.assertEq(creditOf(3), 0);
        IComputeMarketTypes.Job memory job = market.getJob(jobId);
        vm.assertEq(job.spent, 5000 + partial_);
        vm.assertEq(job.round, 1);
        vm.assertEq(job.batch, 0);
        vm.assertEq(market.getSeat(jobId, 2).paidRound, 1);
    }

    function test_MetricsAddUp() external {
        settle(jobId, true, receipt(jobId, 0, 1, 100, 9_000));
        vm.warp(block.timestamp + 60);
        settle(jobId, true, receipt(jobId, 1, 1, 50, 8_000));
        vm.prank(vm.addr(OPERATOR));
        market.withdraw(1, 600, stranger);

        IComputeMarketTypes.NodeMetrics memory metrics = market.getNodeMetrics(1);
        vm.assertEq(metrics.rounds, 2);
        vm.assertEq(metrics.units, 150);
        vm.assertEq(metrics.qualitySum, 17_000);
        vm.assertEq(metrics.lastSettledAt, vm.getBlockTimestamp());
        vm.assertEq(metrics.earned, 450 + 200);
        vm.assertEq(metrics.credit, 50);
    }

    function test_ARoundInWhichNothingWasAcceptedHasNoReceipts() external {
        vm.expectEmit(address(market));
        emit RoundSettled(jobId, 0, 0, true, BASE, 0, 0, EVIDENCE);
        settle(jobId, true, "");
        vm.assertEq(market.getJob(jobId).round, 1);
    }

    function test_WorkOfARetiredNodeIsPaid_WhileItsStakeIsWithinReach() external {
        vm.prank(vm.addr(OPERATOR));
        market.retireNode(1);
        vm.warp(block.timestamp + UNBONDING - 1);
        settle(jobId, true, receipt(jobId, 0, 1, 1000, 10_000));
        vm.assertEq(creditOf(1), 5000);
        vm.warp(vm.getBlockTimestamp() + 1);
        bytes memory late = receipt(jobId, 1, 1, 1000, 10_000);
        bytes[] memory signatures = attest(jobId, 1, 0, true, late);
        vm.expectRevert(abi.encodeWithSelector(HotKeyExpired.selector, 1, vm.getBlockTimestamp()));
        market.settleRound(jobId, 1, 0, true, BASE, late, EVIDENCE, signatures);
    }

    function test_DuringNotice_RoundsSettle() external {
        vm.prank(requester);
        market.requestExit(jobId);
        settle(jobId, true, receipt(jobId, 0, 1, 1000, 10_000));
        vm.assertEq(creditOf(1), 5000);
    }

    function testFuzz_TheAmountIsTheFormula(uint64 units, uint128 rate, uint16 quality) external {
        quality = uint16(bound(quality, 0, 10_000));
        rate = uint128(bound(rate, 0, 1e17));
        units = uint64(bound(units, 0, rate == 0 ? type(uint64).max : 1e17 / rate));
        vm.prank(requester);
        uint256 job = market.createJob(SPEC, 1e17, rate);
        IComputeMarketTypes.Bid memory bid = bidOf(job, 1);
        (bid.rate, bid.capacity) = (rate, type(uint64).max);
        take(job, OPERATOR, bid);
        uint256 amount = uint256(units) * rate * quality / 10_000;
        vm.assertEq(market.calculateRewards(job, 1, units, quality), amount);
        settle(job, true, receipt(job, 0, 1, units, quality));
        vm.assertEq(creditOf(1), amount);
        vm.assertEq(market.getJob(job).spent, amount);
    }

    /*//////////////////////////////////////////////////////////////
                            EACH ONLY ONCE
    //////////////////////////////////////////////////////////////*/

    function test_ASecondSendOfABatchReverts() external {
        bytes memory receipts = receipt(jobId, 0, 1, 1000, 10_000);
        bytes[] memory signatures = attest(jobId, 0, 0, true, receipts);
        market.settleRound(jobId, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
        vm.expectRevert(abi.encodeWithSelector(UnexpectedBatch.selector, jobId, 0, 0, 1, 0));
        market.settleRound(jobId, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
        vm.assertEq(creditOf(1), 5000);
    }

    function test_ANodeTwiceInABatchReverts() external {
        bytes memory one = receipt(jobId, 0, 1, 1000, 10_000);
        bytes memory other = receipt(jobId, 0, 1, 999, 10_000);
        bytes memory reason = abi.encodeWithSelector(AlreadyPaid.selector, jobId, 0, 1);
        expectRefused(true, abi.encodePacked(one, one), reason);
        expectRefused(true, abi.encodePacked(one, other), reason);
    }

    function test_ANodeInTwoBatchesOfARoundReverts_AndInTwoRoundsIsPaidTwice() external {
        bytes memory one = receipt(jobId, 0, 1, 1000, 10_000);
        settle(jobId, false, one);
        bytes[] memory signatures = attest(jobId, 0, 1, true, one);
        vm.expectRevert(abi.encodeWithSelector(AlreadyPaid.selector, jobId, 0, 1));
        market.settleRound(jobId, 0, 1, true, BASE, one, EVIDENCE, signatures);
        settle(jobId, true, receipt(jobId, 0, 2, 1000, 10_000));
        settle(jobId, true, receipt(jobId, 1, 1, 1000, 10_000));
        vm.assertEq(creditOf(1), 10_000);
    }

    function test_ReceiptsComeInAnyOrder() external {
        settle(jobId, false, receipt(jobId, 0, 3, 1, 10_000));
        settle(jobId, false, receipt(jobId, 0, 1, 1, 10_000));
        settle(jobId, true, receipt(jobId, 0, 2, 1, 10_000));
        vm.assertEq(market.getJob(jobId).spent, 15);
    }

    function test_BatchesAndRoundsHaveNoGaps() external {
        bytes memory receipts = receipt(jobId, 0, 1, 1000, 10_000);
        bytes[] memory signatures = attest(jobId, 0, 1, true, receipts);
        vm.expectRevert(abi.encodeWithSelector(UnexpectedBatch.selector, jobId, 0, 1, 0, 0));
        market.settleRound(jobId, 0, 1, true, BASE, receipts, EVIDENCE, signatures);

        settle(jobId, false, receipts);
        bytes memory next = receipt(jobId, 1, 2, 1000, 10_000);
        signatures = attest(jobId, 1, 0, true, next);
        vm.expectRevert(abi.encodeWithSelector(UnexpectedBatch.selector, jobId, 1, 0, 0, 1));
        market.settleRound(jobId, 1, 0, true, BASE, next, EVIDENCE, signatures);
    }

    function test_AReceiptOfAnotherJobOrRoundIsRefused() external {
        uint256 other = postJob();
        take(other, OPERATOR, bidOf(other, 1));
        bytes[2] memory foreign = [receipt(other, 0, 1, 10, 10_000), receipt(jobId, 1, 1, 10, 10_000)];
        for (uint256 i = 0; i < 2; ++i) {
            bytes[] memory signatures = attest(jobId, 0, 0, true, foreign[i]);
            vm.expectRevert(); // InvalidReceiptSignature, with whichever address the digest recovers.
            market.settleRound(jobId, 0, 0, true, BASE, foreign[i], EVIDENCE, signatures);
        }
    }

    /*//////////////////////////////////////////////////////////////
                          WHOLE OR NOT AT ALL
    //////////////////////////////////////////////////////////////*/

    function test_ABatchThatTheEscrowDoesNotCoverPaysNobody() external {
        bytes memory receipts = abi.encodePacked(receipt(2, 0, 1, 3, 10_000), receipt(2, 0, 2, 2, 10_000));
        vm.prank(requester);
        vm.assertEq(market.createJob(SPEC, 24, RATE), 2);
        take(2, OPERATOR, bidOf(2, 1));
        take(2, OPERATOR, bidOf(2, 2));
        bytes[] memory signatures = attest(2, 0, 0, true, receipts);
        vm.expectRevert(abi.encodeWithSelector(InsufficientEscrow.selector, 2, 10, 9));
        market.settleRound(2, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(market.getJob(2).round, 0);

        vm.prank(stranger);
        market.fundJob(2, 1);
        market.settleRound(2, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
        vm.assertEq(creditOf(1), 15);
        vm.assertEq(creditOf(2), 10);
        vm.assertEq(market.getJob(2).spent, 25);
    }

    function test_AnAmountAboveAllMoneyReverts() external {
        vm.prank(requester);
        uint256 job = market.createJob(SPEC, ESCROW, type(uint128).max);
        IComputeMarketTypes.Bid memory bid = bidOf(job, 1);
        (bid.rate, bid.capacity) = (type(uint128).max, type(uint64).max);
        take(job, OPERATOR, bid);
        uint256 owed = uint256(type(uint128).max) * type(uint64).max;
        bytes memory receipts = receipt(job, 0, 1, type(uint64).max, 10_000);
        bytes[] memory signatures = attest(job, 0, 0, true, receipts);
        vm.expectRevert(abi.encodeWithSelector(InsufficientEscrow.selector, job, owed, ESCROW));
        market.settleRound(job, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
    }

    function test_OneBadReceiptRefusesAll() external {
        bytes memory receipts =
            abi.encodePacked(receipt(jobId, 0, 1, 1000, 10_000), receipt(jobId, 0, 2, 1000, 10_001));
        expectRefused(true, receipts, abi.encodeWithSelector(QualityAboveMax.selector, 2, 10_001));
        vm.assertEq(creditOf(1), 0);
    }

    /*//////////////////////////////////////////////////////////////
                             EACH RECEIPT
    //////////////////////////////////////////////////////////////*/

    function test_ANodeWithoutASeatIsRefused() external {
        register(OPERATOR);
        bytes memory receipts = receipt(jobId, 0, 4, 10, 10_000);
        expectRefused(true, receipts, abi.encodeWithSelector(NotSeated.selector, jobId, 4));
        receipts = receipt(jobId, 0, 0, 10, 10_000);
        expectRefused(true, receipts, abi.encodeWithSelector(NotSeated.selector, jobId, 0));
        receipts = receipt(jobId, 0, 1 << 24, 10, 10_000);
        expectRefused(true, receipts, abi.encodeWithSelector(UnknownNode.selector, 1 << 24));
    }

    function test_MoreUnitsThanTheBidCoversAreRefused() external {
        bytes memory receipts = receipt(jobId, 0, 1, CAPACITY + 1, 10_000);
        bytes memory reason = abi.encodeWithSelector(UnitsAboveCapacity.selector, 1, CAPACITY + 1, CAPACITY);
        expectRefused(true, receipts, reason);
    }

    function test_AReceiptOfAnotherKeyIsRefused() external {
        Signing.Work memory work = Signing.Work(jobId, 0, 1, 10, BASE, artifactOf(1));
        bytes memory receipts = Signing.packedReceipt(market, OPERATOR, work, 10_000);
        bytes memory reason = abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, vm.addr(OPERATOR));
        expectRefused(true, receipts, reason);
    }

    function test_AReceiptFromAnotherBaseIsRefused() external {
        Signing.Work memory work = Signing.Work(jobId, 0, 1, 10, EVIDENCE, artifactOf(1));
        bytes memory receipts = Signing.packedReceipt(market, HOT + 1, work, 10_000);
        bytes[] memory signatures = attest(jobId, 0, 0, true, receipts);
        vm.expectRevert();
        market.settleRound(jobId, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
    }

    function test_AKeyThatWasReplacedPaysNoMore() external {
        bytes memory receipts = receipt(jobId, 0, 1, 10, 10_000);
        address operator = vm.addr(OPERATOR);
        bytes memory byOperator = signDelegation(OPERATOR, operator, vm.addr(0x3000), FAR);
        bytes memory byKey = signDelegation(0x3000, operator, vm.addr(0x3000), FAR);
        vm.prank(operator);
        market.delegateHotKey(1, vm.addr(0x3000), FAR, byOperator, byKey);
        bytes memory reason = abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, vm.addr(HOT + 1));
        expectRefused(true, receipts, reason);
    }

    function test_AnExpiredKeyIsRefused_UntilItIsRenewed() external {
        vm.warp(FAR);
        bytes memory receipts = receipt(jobId, 0, 1, 10, 10_000);
        expectRefused(true, receipts, abi.encodeWithSelector(HotKeyExpired.selector, 1, FAR));
        address operator = vm.addr(OPERATOR);
        bytes memory byOperator = signDelegation(OPERATOR, operator, vm.addr(HOT + 1), FAR + 1);
        bytes memory byKey = signDelegation(HOT + 1, operator, vm.addr(HOT + 1), FAR + 1);
        market.delegateHotKey(1, vm.addr(HOT + 1), FAR + 1, byOperator, byKey);
        settle(jobId, true, receipts);
        vm.assertEq(creditOf(1), 50);
    }

    function test_TheOtherHalfOfASignatureIsRefused() external {
        bytes memory receipts = receipt(jobId, 0, 1, 10, 10_000);
        // (r, n - s) with the other v recovers the same key: the malleable twin (EIP-2).
        uint256 s;
        assembly ("memory-safe") {
            s := mload(add(receipts, 110))
            mstore(add(receipts, 110), sub(ORDER, s))
        }
        receipts[110] = receipts[110] == bytes1(uint8(27)) ? bytes1(uint8(28)) : bytes1(uint8(27));
        expectRefused(true, receipts, abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, address(0)));
    }

    function test_AnotherVIsRefused() external {
        bytes memory receipts = receipt(jobId, 0, 1, 10, 10_000);
        receipts[110] = bytes1(uint8(receipts[110]) - 27);
        expectRefused(true, receipts, abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, address(0)));
    }

    function testFuzz_ATornBatchIsRefused(uint16 length) external {
        vm.assume(length % 111 != 0);
        bytes memory receipts = new bytes(length);
        expectRefused(true, receipts, abi.encodeWithSelector(InvalidReceiptsLength.selector, length));
    }

    function testFuzz_AFlippedBitIsRefused(uint256 bit) external {
        bytes memory receipts = receipt(jobId, 0, 1, 10, 10_000);
        bytes[] memory signatures = attest(jobId, 0, 0, true, receipts);
        bit = bound(bit, 0, receipts.length * 8 - 1);
        receipts[bit / 8] = receipts[bit / 8] ^ bytes1(uint8(1 << (bit % 8)));
        vm.expectRevert(); // NotAttestor: the attestors vouched for other bytes.
        market.settleRound(jobId, 0, 0, true, BASE, receipts, EVIDENCE, signatures);
    }

    /*//////////////////////////////////////////////////////////////
                              ATTESTATIONS
    //////////////////////////////////////////////////////////////*/

    function expectUnattested(bytes[] memory signatures, bytes memory reason) internal {
        vm.expectRevert(reason);
        market.settleRound(jobId, 0, 0, true, BASE, "", EVIDENCE, signatures);
    }

    function test_FewerThanTheQuorumAreRefused() external {
        bytes[] memory one = new bytes[](1);
        one[0] = attest(jobId, 0, 0, true, "")[0];
        expectUnattested(one, abi.encodeWithSelector(QuorumNotReached.selector, 1, 2));
        expectUnattested(new bytes[](0), abi.encodeWithSelector(QuorumNotReached.selector, 0, 2));
    }

    function test_AllThreeMaySign() external {
        bytes[] memory two = attest(jobId, 0, 0, true, "");
        bytes[] memory three = new bytes[](3);
        (three[0], three[1]) = (two[0], two[1]);
        Signing.Batch memory content = Signing.Batch(jobId, 0, 0, true, BASE, keccak256(""), EVIDENCE);
        three[2] = Signing.attestation(market, attestorKeys[2], content);
        market.settleRound(jobId, 0, 0, true, BASE, "", EVIDENCE, three);
        vm.assertEq(market.getJob(jobId).round, 1);
    }

    function test_AnAttestorTwice_OrOutOfOrder_IsRefused() external {
        bytes[] memory signatures = attest(jobId, 0, 0, true, "");
        address first = vm.addr(attestorKeys[0]);
        address second = vm.addr(attestorKeys[1]);
        (signatures[0], signatures[1]) = (signatures[1], signatures[0]);
        expectUnattested(signatures, abi.encodeWithSelector(AttestorsOutOfOrder.selector, second, first));
        signatures[0] = signatures[1];
        expectUnattested(signatures, abi.encodeWithSelector(AttestorsOutOfOrder.selector, first, first));
    }

    function test_AStrangerIsNoAttestor() external {
        bytes[] memory signatures = attest(jobId, 0, 0, true, "");
        Signing.Batch memory content = Signing.Batch(jobId, 0, 0, true, BASE, keccak256(""), EVIDENCE);
        signatures[1] = Signing.attestation(market, 0xBAD, content);
        expectUnattested(signatures, abi.encodeWithSelector(NotAttestor.selector, vm.addr(0xBAD)));
        signatures[1] = new bytes(65);
        expectUnattested(signatures, abi.encodeWithSelector(NotAttestor.selector, address(0)));
        signatures[1] = new bytes(64);
        expectUnattested(signatures, abi.encodeWithSelector(NotAttestor.selector, address(0)));
    }

    function test_EachPartOfTheCallIsAttested() external {
        bytes[] memory signatures = attest(jobId, 0, 0, true, "");
        vm.expectRevert();
        market.settleRound(jobId, 0, 0, false, BASE, "", EVIDENCE, signatures);
        vm.expectRevert();
        market.settleRound(jobId, 0, 0, true, EVIDENCE, "", EVIDENCE, signatures);
        vm.expectRevert();
        market.settleRound(jobId, 0, 0, true, BASE, "", BASE, signatures);
        uint256 other = postJob();
        vm.expectRevert();
        market.settleRound(other, 0, 0, true, BASE, "", EVIDENCE, signatures);
        market.settleRound(jobId, 0, 0, true, BASE, "", EVIDENCE, signatures);
    }

    function test_OnAnotherChainSignaturesAreWorthNothing() external {
        bytes[] memory signatures = attest(jobId, 0, 0, true, "");
        vm.chainId(143);
        vm.expectRevert();
        market.settleRound(jobId, 0, 0, true, BASE, "", EVIDENCE, signatures);
        settle(jobId, true, ""); // Signed for the chain that it now is.
    }

    function test_AJobThatIsOverOrUnknownSettlesNothing() external {
        market.closeJob(jobId, 0, 0, attestClosure(jobId, 0, 0));
        expectUnattested(attest(jobId, 0, 0, true, ""), abi.encodeWithSelector(JobIsClosed.selector, jobId));
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 9));
        market.settleRound(9, 0, 0, true, BASE, "", EVIDENCE, new bytes[](0));
    }
}

contract SubmitContributionTest is MarketTest {
    function test_OneReceiptIsPaidAtATime() external {
        uint256 jobId = jobWithNodes(2);
        for (uint32 nodeId = 1; nodeId <= 2; ++nodeId) {
            bytes memory one = receipt(jobId, 0, nodeId, 10, 10_000);
            bool last = nodeId == 2;
            bytes[] memory signatures = attest(jobId, 0, nodeId - 1, last, one);
            market.submitContribution(jobId, 0, nodeId - 1, last, BASE, one, EVIDENCE, signatures);
            vm.assertEq(creditOf(nodeId), 50);
        }
        vm.assertEq(market.getJob(jobId).round, 1);
    }

    function test_NoneOrTwoAreRefused() external {
        uint256 jobId = jobWithNodes(2);
        bytes memory two =
            abi.encodePacked(receipt(jobId, 0, 1, 10, 10_000), receipt(jobId, 0, 2, 10, 10_000));
        bytes[] memory signatures = attest(jobId, 0, 0, true, two);
        vm.expectRevert(abi.encodeWithSelector(InvalidReceiptsLength.selector, 222));
        market.submitContribution(jobId, 0, 0, true, BASE, two, EVIDENCE, signatures);
        vm.expectRevert(abi.encodeWithSelector(InvalidReceiptsLength.selector, 0));
        market.submitContribution(jobId, 0, 0, true, BASE, "", EVIDENCE, signatures);
    }
}

contract CalculateRewardsTest is MarketTest {
    function test_ItAppliesTheRulesOfSettlement() external {
        uint256 jobId = jobWithNodes(1);
        vm.assertEq(market.calculateRewards(jobId, 1, 1000, 9_999), 4999);
        vm.assertEq(market.calculateRewards(jobId, 1, 0, 10_000), 0);
        vm.expectRevert(abi.encodeWithSelector(QualityAboveMax.selector, 1, 10_001));
        market.calculateRewards(jobId, 1, 1, 10_001);
        vm.expectRevert(abi.encodeWithSelector(UnitsAboveCapacity.selector, 1, CAPACITY + 1, CAPACITY));
        market.calculateRewards(jobId, 1, CAPACITY + 1, 1);
        vm.expectRevert(abi.encodeWithSelector(NotSeated.selector, jobId, 2));
        market.calculateRewards(jobId, 2, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 7));
        market.calculateRewards(7, 1, 1, 1);
    }
}
