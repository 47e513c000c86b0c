// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

/// @notice See SettleRound.tree.
contract SettleRoundTest is MarketTest {
    uint256 internal constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141; // secp256k1
    uint256 internal jobId;

    function setUp() public override {
        super.setUp();
        jobId = jobWithNodes(3);
    }

    function expectRefused(bytes memory receipts, bytes memory reason) internal {
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        vm.expectRevert(reason);
        market.settleRound(header, receipts, attestations);
    }

    function scoresOf(uint16 a, uint16 b, uint16 c) internal pure returns (bytes[] memory scores) {
        scores = new bytes[](3);
        (scores[0], scores[1], scores[2]) = (abi.encodePacked(a), abi.encodePacked(b), abi.encodePacked(c));
    }

    /*//////////////////////////////////////////////////////////////
                                PAYMENT
    //////////////////////////////////////////////////////////////*/

    function test_ABatchIsCredited_ByUnitsRateAndMedian() external {
        bytes memory receipts = abi.encodePacked(receipt(jobId, 0, 1, 1000), receipt(jobId, 0, 2, 999));
        bytes[] memory scores = new bytes[](3);
        scores[0] = abi.encodePacked(uint16(10_000), uint16(8_317));
        scores[1] = abi.encodePacked(uint16(10_000), uint16(0));
        scores[2] = abi.encodePacked(uint16(9_000), uint16(10_000));
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, receipts, scores, 7);
        uint128 partial_ = 4154; // 999 * 5 * 0.8317 = 4154.3...
        vm.expectEmit(address(market));
        emit ContributionSettled(jobId, 0, 1, 1000, 10_000, 5000, artifactOf(1));
        vm.expectEmit(address(market));
        emit ContributionSettled(jobId, 0, 2, 999, 8_317, partial_, artifactOf(2));
        vm.expectEmit(address(market));
        emit RoundSettled(jobId, 0, 0, true, BASE, 2, 5000 + partial_, EVIDENCE, 1, 7);
        vm.prank(stranger);
        market.settleRound(header, receipts, attestations);

        vm.assertEq(creditOf(1), 5000);
        vm.assertEq(creditOf(2), partial_);
        vm.assertEq(creditOf(3), 0);
        Job memory job = market.getJob(jobId);
        vm.assertEq(job.spent, 5000 + partial_);
        vm.assertEq(job.round, 1);
        vm.assertEq(job.batch, 0);
        vm.assertEq(job.lastNode, 0);
        checkHoldings();
    }

    function test_MetricsAddUp_ForTheNodeAndForItsOperator() external {
        settle(jobId, true, abi.encodePacked(receipt(jobId, 0, 1, 100), receipt(jobId, 0, 2, 7)), 9_000);
        settle(jobId, true, receipt(jobId, 1, 1, 50), 8_000);
        vm.prank(vm.addr(OPERATOR));
        market.withdraw(1, 600, stranger);

        NodeMetrics memory metrics = market.getNodeMetrics(1);
        vm.assertEq(metrics.rounds, 2);
        vm.assertEq(metrics.units, 150);
        vm.assertEq(metrics.qualitySum, 17_000);
        vm.assertEq(metrics.earned, 450 + 200);
        vm.assertEq(metrics.credit, 50);
        metrics = market.getOperatorMetrics(vm.addr(OPERATOR));
        vm.assertEq(metrics.rounds, 3);
        vm.assertEq(metrics.units, 157);
        vm.assertEq(metrics.qualitySum, 26_000);
        vm.assertEq(metrics.earned, 450 + 200 + 31);
        vm.assertEq(metrics.credit, 50 + 31);
        vm.assertEq(metrics.withdrawable, 50 + 31);
        vm.assertEq(market.getOperatorNodes(vm.addr(OPERATOR)).length, 3);
    }

    function test_ARoundInWhichNothingWasAcceptedHasNoReceipts() external {
        vm.expectEmit(address(market));
        emit RoundSettled(jobId, 0, 0, true, BASE, 0, 0, EVIDENCE, 1, 3);
        settle(jobId, true, "");
        vm.assertEq(market.getJob(jobId).round, 1);
    }

    function test_TheRoundsDigestChainsItsBatches() external {
        bytes memory first = receipt(jobId, 0, 1, 10);
        bytes memory second = receipt(jobId, 0, 3, 20);
        settle(jobId, false, first, 9_000);
        vm.assertEq(market.getRound(jobId, 0).settledAt, 0);
        settle(jobId, true, second, 8_000);

        bytes26 digest = bytes26(keccak256(abi.encode(bytes26(0), settledBatch(first, 9_000))));
        digest = bytes26(keccak256(abi.encode(digest, settledBatch(second, 8_000))));
        RoundRecord memory record = market.getRound(jobId, 0);
        vm.assertEq(bytes32(record.digest), bytes32(digest));
        vm.assertEq(record.settledAt, block.timestamp);
        vm.assertFalse(record.accepted);
    }

    function settledBatch(bytes memory receipts, uint16 quality) internal pure returns (SettledBatch memory) {
        return SettledBatch(BASE, EVIDENCE, keccak256(receipts), keccak256(abi.encodePacked(quality)), 1, 3);
    }

    function test_DuringNotice_RoundsSettle() external {
        vm.prank(requester);
        market.requestExit(jobId);
        settle(jobId, true, receipt(jobId, 0, 1, 1000));
        vm.assertEq(creditOf(1), 5000);
    }

    function testFuzz_TheAmountIsTheFormula(uint48 units, uint96 rate, uint16 quality) external {
        quality = uint16(bound(quality, 0, 10_000));
        rate = uint96(bound(rate, 0, 1e17));
        units = uint48(bound(units, 0, rate == 0 ? type(uint48).max : 1e17 / rate));
        uint256 job = postJob(1e17, rate);
        Bid memory bid = bidOf(job, 1);
        (bid.rate, bid.capacity) = (rate, type(uint48).max);
        take(job, OPERATOR, bid);
        uint256 amount = uint256(units) * rate * quality / 10_000;
        vm.assertEq(market.calculateRewards(job, 1, units, quality), amount);
        settle(job, true, receipt(job, 0, 1, units), quality);
        vm.assertEq(creditOf(1), amount);
        vm.assertEq(market.getJob(job).spent, amount);
        checkHoldings();
    }

    /*//////////////////////////////////////////////////////////////
                               THE MEDIAN
    //////////////////////////////////////////////////////////////*/

    /// @dev Each number of attestors that there can be, against a median by counting.
    function testFuzz_QualityIsTheLowerMedian(uint16[16] memory scores, uint8 count) external {
        count = uint8(bound(count, 1, 16));
        delete attestorKeys;
        bytes[] memory packed = new bytes[](count);
        for (uint256 i = 0; i < count; ++i) {
            attestorKeys.push(0xB1 + i);
            scores[i] = uint16(bound(scores[i], 0, 10_000));
            packed[i] = abi.encodePacked(scores[i]);
        }
        vm.prank(registry);
        market.beginEpoch(attestors(), count / 2 + 1);
        bytes memory one = receipt(jobId, 0, 1, 10_000);
        BatchHeader memory header = nextBatch(jobId, true);
        market.settleRound(header, one, attest(header, one, packed, type(uint256).max));
        vm.assertEq(creditOf(1), uint256(lowerMedian(scores, count)) * RATE);
    }

    /// @dev The highest score that has fewer than half, rounded down, of the others above or equal: the score with at
    /// most (n - 1) / 2 below it and at least as many, or one more, not below it.
    function lowerMedian(uint16[16] memory scores, uint256 count) internal pure returns (uint16) {
        uint256 rank = (count - 1) / 2;
        for (uint256 i = 0; i < count; ++i) {
            uint256 below;
            uint256 equal;
            for (uint256 j = 0; j < count; ++j) {
                if (scores[j] < scores[i]) ++below;
                if (scores[j] == scores[i]) ++equal;
            }
            if (below <= rank && rank < below + equal) return scores[i];
        }
        revert("no median");
    }

    function test_WhoDoesNotOpenHasNoSay() external {
        bytes memory one = receipt(jobId, 0, 1, 1000);
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, one, scoresOf(0, 8_000, 9_000), 6);
        vm.expectEmit(address(market));
        emit ContributionSettled(jobId, 0, 1, 1000, 8_000, 4000, artifactOf(1));
        vm.expectEmit(address(market));
        emit RoundSettled(jobId, 0, 0, true, BASE, 1, 4000, EVIDENCE, 1, 6);
        market.settleRound(header, one, attestations);
    }

    function test_AScoreAboveTheMostRefusesAll_EvenIfItIsNotTheMedian() external {
        bytes memory one = receipt(jobId, 0, 1, 1000);
        BatchHeader memory header = nextBatch(jobId, true);
        for (uint256 place = 0; place < 3; ++place) {
            bytes[] memory scores = scoresOf(1, 2, 3);
            scores[place] = abi.encodePacked(uint16(10_001));
            Attestation[] memory attestations = attest(header, one, scores, 7);
            vm.expectRevert(abi.encodeWithSelector(QualityAboveMax.selector, 1, 10_001));
            market.settleRound(header, one, attestations);
        }
    }

    /*//////////////////////////////////////////////////////////////
                            EACH ONLY ONCE
    //////////////////////////////////////////////////////////////*/

    function test_ASecondSendOfABatchReverts() external {
        bytes memory receipts = receipt(jobId, 0, 1, 1000);
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        market.settleRound(header, receipts, attestations);
        vm.expectRevert(abi.encodeWithSelector(UnexpectedBatch.selector, jobId, 0, 0, 1, 0));
        market.settleRound(header, receipts, attestations);
        vm.assertEq(creditOf(1), 5000);
    }

    function test_ANodeTwiceInABatchReverts() external {
        bytes memory one = receipt(jobId, 0, 1, 1000);
        bytes memory reason = abi.encodeWithSelector(NodesOutOfOrder.selector, jobId, 0, 1, 1);
        expectRefused(abi.encodePacked(one, one), reason);
        expectRefused(abi.encodePacked(one, receipt(jobId, 0, 1, 999)), reason);
    }

    function test_NodesThatDoNotIncreaseRevert_AcrossBatchesToo() external {
        bytes memory two = receipt(jobId, 0, 2, 1000);
        bytes memory one = receipt(jobId, 0, 1, 1000);
        bytes memory reason = abi.encodeWithSelector(NodesOutOfOrder.selector, jobId, 0, 2, 1);
        expectRefused(abi.encodePacked(two, one), reason);
        settle(jobId, false, two);
        vm.assertEq(market.getJob(jobId).lastNode, 2);
        expectRefused(one, reason);
        expectRefused(two, abi.encodeWithSelector(NodesOutOfOrder.selector, jobId, 0, 2, 2));
        settle(jobId, true, receipt(jobId, 0, 3, 1000));
        settle(jobId, true, receipt(jobId, 1, 1, 1000)); // In the next round it counts from the start.
        vm.assertEq(creditOf(1), 5000);
    }

    function test_AnEmptyBatchKeepsTheOrder() external {
        settle(jobId, false, receipt(jobId, 0, 2, 1000));
        settle(jobId, false, "");
        bytes memory one = receipt(jobId, 0, 1, 1000);
        expectRefused(one, abi.encodeWithSelector(NodesOutOfOrder.selector, jobId, 0, 2, 1));
    }

    function test_BatchesAndRoundsHaveNoGaps() external {
        bytes memory receipts = receipt(jobId, 0, 1, 1000);
        BatchHeader memory header = batchOf(jobId, 0, 1, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        vm.expectRevert(abi.encodeWithSelector(UnexpectedBatch.selector, jobId, 0, 1, 0, 0));
        market.settleRound(header, receipts, attestations);

        settle(jobId, false, receipts);
        bytes memory next = receipt(jobId, 1, 2, 1000);
        header = batchOf(jobId, 1, 0, true);
        attestations = attest(header, next, 10_000);
        vm.expectRevert(abi.encodeWithSelector(UnexpectedBatch.selector, jobId, 1, 0, 0, 1));
        market.settleRound(header, next, attestations);
    }

    function test_AReceiptOfAnotherJobOrRoundIsRefused() external {
        uint256 other = postJob();
        take(other, OPERATOR, bidOf(other, 1));
        bytes[2] memory foreign = [receipt(other, 0, 1, 10), receipt(jobId, 1, 1, 10)];
        BatchHeader memory header = nextBatch(jobId, true);
        for (uint256 i = 0; i < 2; ++i) {
            Attestation[] memory attestations = attest(header, foreign[i], 10_000);
            vm.expectRevert(); // InvalidReceiptSignature, with whichever address the digest recovers.
            market.settleRound(header, foreign[i], attestations);
        }
    }

    /*//////////////////////////////////////////////////////////////
                          WHOLE OR NOT AT ALL
    //////////////////////////////////////////////////////////////*/

    function test_ABatchThatTheEscrowDoesNotCoverPaysNobody() external {
        uint256 small = postJob(24, RATE);
        take(small, OPERATOR, bidOf(small, 1));
        take(small, OPERATOR, bidOf(small, 2));
        bytes memory receipts = abi.encodePacked(receipt(small, 0, 1, 3), receipt(small, 0, 2, 2));
        BatchHeader memory header = nextBatch(small, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        vm.expectRevert(abi.encodeWithSelector(InsufficientEscrow.selector, small, 10, 9));
        market.settleRound(header, receipts, attestations);
        vm.assertEq(creditOf(1), 0);
        vm.assertEq(market.getJob(small).round, 0);

        vm.prank(stranger);
        market.fundJob(small, 1);
        market.settleRound(header, receipts, attestations);
        vm.assertEq(creditOf(1), 15);
        vm.assertEq(creditOf(2), 10);
        vm.assertEq(market.getJob(small).spent, 25);
    }

    function test_EscrowThatIsReservedPaysOnlyItsRecord() external {
        uint256 small = postJob(25, RATE);
        take(small, OPERATOR, bidOf(small, 1));
        take(small, OPERATOR, bidOf(small, 2));
        market.submitContribution(small, 0, BASE, receipt(small, 0, 2, 3));
        vm.assertEq(market.getJob(small).reserved, 15);
        // 10 is left for node 1, which asks for 15; then for 10.
        bytes memory much = abi.encodePacked(receipt(small, 0, 1, 3), receipt(small, 0, 2, 3));
        BatchHeader memory header = nextBatch(small, true);
        Attestation[] memory attestations = attest(header, much, 10_000);
        vm.expectRevert(abi.encodeWithSelector(InsufficientEscrow.selector, small, 15, 10));
        market.settleRound(header, much, attestations);
        settle(small, true, abi.encodePacked(receipt(small, 0, 1, 2), receipt(small, 0, 2, 3)));
        Job memory job = market.getJob(small);
        vm.assertEq(job.spent, 25);
        vm.assertEq(job.reserved, 0);
        vm.assertEq(job.records, 0);
        vm.assertEq(market.getSeat(small, 2).recordedRound, 0);
        vm.assertEq(market.getSeat(small, 2).recordedUnits, 0);
        close(small);
    }

    function test_ARecordOfAnotherRoundStays() external {
        market.submitContribution(jobId, 1, BASE, receipt(jobId, 1, 1, 10));
        settle(jobId, true, receipt(jobId, 0, 1, 7));
        vm.assertEq(market.getJob(jobId).reserved, 50);
        vm.assertEq(market.getSeat(jobId, 1).recordedRound, 2);
        settle(jobId, true, receipt(jobId, 1, 1, 10), 5_000);
        vm.assertEq(market.getJob(jobId).reserved, 0);
        vm.assertEq(market.getJob(jobId).spent, 35 + 25);
        checkHoldings();
    }

    function test_AnAmountAboveAllMoneyReverts() external {
        uint256 job = postJob(ESCROW, type(uint96).max);
        Bid memory bid = bidOf(job, 1);
        (bid.rate, bid.capacity) = (type(uint96).max, type(uint48).max);
        take(job, OPERATOR, bid);
        uint256 owed = uint256(type(uint96).max) * type(uint48).max;
        bytes memory receipts = receipt(job, 0, 1, type(uint48).max);
        BatchHeader memory header = nextBatch(job, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        vm.expectRevert(abi.encodeWithSelector(InsufficientEscrow.selector, job, owed, ESCROW));
        market.settleRound(header, receipts, attestations);
    }

    /*//////////////////////////////////////////////////////////////
                             EACH RECEIPT
    //////////////////////////////////////////////////////////////*/

    function test_ANodeWithoutASeatIsRefused() external {
        register(OPERATOR);
        expectRefused(receipt(jobId, 0, 4, 10), abi.encodeWithSelector(NotSeated.selector, jobId, 4));
        expectRefused(receipt(jobId, 0, 1 << 24, 10), abi.encodeWithSelector(UnknownNode.selector, 1 << 24));
        bytes memory nobody = receipt(jobId, 0, 0, 10);
        expectRefused(nobody, abi.encodeWithSelector(NodesOutOfOrder.selector, jobId, 0, 0, 0));
    }

    function test_MoreUnitsThanTheBidCoversAreRefused() external {
        bytes memory reason = abi.encodeWithSelector(UnitsAboveCapacity.selector, 1, CAPACITY + 1, CAPACITY);
        expectRefused(receipt(jobId, 0, 1, CAPACITY + 1), reason);
    }

    function test_AReceiptOfAnotherKeyIsRefused() external {
        Signing.Work memory work = Signing.Work(jobId, 0, 1, 10, BASE, artifactOf(1));
        bytes memory receipts = Signing.packedReceipt(market, OPERATOR, work);
        expectRefused(
            receipts, abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, vm.addr(OPERATOR))
        );
    }

    function test_AReceiptFromAnotherBaseIsRefused() external {
        Signing.Work memory work = Signing.Work(jobId, 0, 1, 10, EVIDENCE, artifactOf(1));
        bytes memory receipts = Signing.packedReceipt(market, HOT + 1, work);
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        vm.expectRevert();
        market.settleRound(header, receipts, attestations);
    }

    function replaceKey(uint256 key) internal {
        address operator = vm.addr(OPERATOR);
        bytes memory byOperator = signDelegation(OPERATOR, operator, vm.addr(key), FAR);
        bytes memory byKey = signDelegation(key, operator, vm.addr(key), FAR);
        vm.prank(operator);
        market.delegateHotKey(1, vm.addr(key), FAR, byOperator, byKey);
    }

    function test_AKeyThatWasReplacedSettlesForAGracePeriod_HoweverOftenItWas() external {
        replaceKey(0x3000);
        replaceKey(0x3001);
        vm.assertEq(market.getNode(1).previousKey, vm.addr(0x3000));
        vm.assertEq(market.getNode(1).previousUntil, time() + GRACE);
        later(GRACE - 1);
        settle(jobId, true, receipt(jobId, 0, 1, 10));
        later(1);
        bytes memory late = receipt(jobId, 1, 1, 10);
        expectRefused(late, abi.encodeWithSelector(HotKeyExpired.selector, 1, 1_700_000_000));
    }

    function test_AnExpiredKeySettlesForAGracePeriod_AndAgainOnceItIsRenewed() external {
        vm.warp(FAR + GRACE - 1);
        settle(jobId, true, receipt(jobId, 0, 1, 10));
        later(1);
        bytes memory late = receipt(jobId, 1, 1, 10);
        expectRefused(late, abi.encodeWithSelector(HotKeyExpired.selector, 1, FAR));
        address operator = vm.addr(OPERATOR);
        uint64 renewed = FAR + 2 * GRACE;
        bytes memory byOperator = signDelegation(OPERATOR, operator, vm.addr(HOT + 1), renewed);
        bytes memory byKey = signDelegation(HOT + 1, operator, vm.addr(HOT + 1), renewed);
        market.delegateHotKey(1, vm.addr(HOT + 1), renewed, byOperator, byKey);
        settle(jobId, true, late);
        vm.assertEq(creditOf(1), 100);
    }

    function test_AReplacedKeyThatHadExpiredEndsWhenItExpired() external {
        vm.warp(FAR + 10);
        address operator = vm.addr(OPERATOR);
        uint64 until = FAR + 2 * GRACE;
        bytes memory byOperator = signDelegation(OPERATOR, operator, vm.addr(0x3000), until);
        bytes memory byKey = signDelegation(0x3000, operator, vm.addr(0x3000), until);
        vm.prank(operator);
        market.delegateHotKey(1, vm.addr(0x3000), until, byOperator, byKey);
        vm.assertEq(market.keyGoodUntil(1, vm.addr(HOT + 1)), FAR + GRACE);
    }

    function test_WorkOfARetiredNodeIsPaid_AsLongAsItsKeyHasGrace() external {
        vm.prank(vm.addr(OPERATOR));
        market.retireNode(1);
        uint64 end = time() + UNBONDING;
        vm.warp(end + GRACE - 1);
        settle(jobId, true, receipt(jobId, 0, 1, 1000));
        vm.assertEq(creditOf(1), 5000);
        later(1);
        expectRefused(receipt(jobId, 1, 1, 1000), abi.encodeWithSelector(HotKeyExpired.selector, 1, end));
    }

    function test_TheOtherHalfOfASignatureIsRefused() external {
        bytes memory receipts = receipt(jobId, 0, 1, 10);
        // (r, n - s) with the other v recovers the same key: the malleable twin (EIP-2).
        uint256 s;
        assembly ("memory-safe") {
            s := mload(add(receipts, 108))
            mstore(add(receipts, 108), sub(ORDER, s))
        }
        receipts[108] = receipts[108] == bytes1(uint8(27)) ? bytes1(uint8(28)) : bytes1(uint8(27));
        expectRefused(receipts, abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, address(0)));
    }

    function test_AnotherVIsRefused() external {
        bytes memory receipts = receipt(jobId, 0, 1, 10);
        receipts[108] = bytes1(uint8(receipts[108]) - 27);
        expectRefused(receipts, abi.encodeWithSelector(InvalidReceiptSignature.selector, 1, address(0)));
    }

    function testFuzz_ATornBatchIsRefused(uint16 length) external {
        vm.assume(length % 109 != 0);
        expectRefused(new bytes(length), abi.encodeWithSelector(InvalidReceiptsLength.selector, length));
    }

    function testFuzz_AFlippedBitIsRefused(uint256 bit) external {
        bytes memory receipts = receipt(jobId, 0, 1, 10);
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, receipts, 10_000);
        bit = bound(bit, 0, receipts.length * 8 - 1);
        receipts[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        // Of the attestors, and by what they signed for in the original.
        vm.expectRevert();
        market.settleRound(header, receipts, attestations);
        // Of the node, when the attestors go along.
        attestations = attest(header, receipts, 10_000);
        vm.expectRevert();
        market.settleRound(header, receipts, attestations);
    }

    /*//////////////////////////////////////////////////////////////
                              ATTESTATIONS
    //////////////////////////////////////////////////////////////*/

    function expectUnattested(Attestation[] memory attestations, bytes memory reason) internal {
        BatchHeader memory header = nextBatch(jobId, true);
        bytes memory one = receipt(jobId, 0, 1, 1000);
        vm.expectRevert(reason);
        market.settleRound(header, one, attestations);
    }

    function threeOpenings() internal view returns (Attestation[] memory) {
        return attest(nextBatch(jobId, true), receipt(jobId, 0, 1, 1000), scoresOf(1, 2, 3), 7);
    }

    function test_AQuorumMustOpen() external {
        bytes memory one = receipt(jobId, 0, 1, 1000);
        Attestation[] memory attestations = attest(nextBatch(jobId, true), one, scoresOf(1, 2, 3), 4);
        expectUnattested(attestations, abi.encodeWithSelector(QuorumNotReached.selector, 1, 2));
        expectUnattested(new Attestation[](0), abi.encodeWithSelector(QuorumNotReached.selector, 0, 2));
    }

    function test_MembersComeInOrder_EachOnce() external {
        Attestation[] memory attestations = threeOpenings();
        (attestations[0], attestations[1]) = (attestations[1], attestations[0]);
        expectUnattested(attestations, abi.encodeWithSelector(InvalidMember.selector, 0, 3));
        attestations = threeOpenings();
        attestations[1] = attestations[0];
        expectUnattested(attestations, abi.encodeWithSelector(InvalidMember.selector, 0, 3));
        attestations = threeOpenings();
        attestations[2].member = 3;
        expectUnattested(attestations, abi.encodeWithSelector(InvalidMember.selector, 3, 3));
    }

    function test_ScoresAreOneForEachReceipt_OrNoneWithoutSignature() external {
        Attestation[] memory attestations = threeOpenings();
        attestations[1].scores = hex"000102";
        expectUnattested(attestations, abi.encodeWithSelector(InvalidScoresLength.selector, 1, 3, 2));
        attestations[1].scores = "";
        expectUnattested(attestations, abi.encodeWithSelector(InvalidScoresLength.selector, 1, 0, 2));
        attestations = threeOpenings();
        attestations[1].signature = "";
        expectUnattested(attestations, abi.encodeWithSelector(InvalidScoresLength.selector, 1, 2, 0));
    }

    function test_AnothersSignatureIsRefused() external {
        Attestation[] memory attestations = threeOpenings();
        attestations[1].signature = attestations[2].signature;
        expectUnattested(
            attestations, abi.encodeWithSelector(InvalidAttestation.selector, 1, vm.addr(attestorKeys[2]))
        );
        attestations[1].signature = hex"00";
        expectUnattested(attestations, abi.encodeWithSelector(InvalidAttestation.selector, 1, address(0)));
    }

    /// @dev Whatever is shown must be what was committed to before anybody signed.
    function test_OtherScoresOrSaltThanCommittedAreRefused() external {
        BatchHeader memory header = nextBatch(jobId, true);
        bytes memory one = receipt(jobId, 0, 1, 1000);
        for (uint256 i = 0; i < 4; ++i) {
            Attestation[] memory attestations = attest(header, one, scoresOf(1, 2, 3), i == 3 ? 3 : 7);
            if (i == 0) attestations[0].scores = hex"0002";
            if (i == 1) attestations[2].salt = bytes32(uint256(1));
            if (i == 2) attestations = without(attestations, 2); // An opened member cannot be dropped.
            if (i == 3) attestations[2].salt = bytes32(uint256(1)); // Nor a bare commitment be changed.
            vm.expectRevert(); // InvalidAttestation, with whichever address the digest recovers.
            market.settleRound(header, one, attestations);
        }
    }

    function without(Attestation[] memory list, uint256 index)
        internal
        pure
        returns (Attestation[] memory rest)
    {
        rest = new Attestation[](list.length - 1);
        for (uint256 i = 0; i < rest.length; ++i) {
            rest[i] = list[i < index ? i : i + 1];
        }
    }

    function test_EachFieldOfTheHeaderIsSigned() external {
        Attestation[] memory attestations = attest(nextBatch(jobId, true), "", 0);
        vm.prank(registry);
        market.beginEpoch(attestors(), 2); // So that there is another epoch that is good.
        uint256 other = postJob();
        for (uint256 i = 0; i < 5; ++i) {
            BatchHeader memory header = batchOf(jobId, 0, 0, true);
            header.epoch = 1;
            if (i == 0) header.jobId = other;
            if (i == 1) header.last = false;
            if (i == 2) header.epoch = 2;
            if (i == 3) header.base = EVIDENCE;
            if (i == 4) header.evidence = BASE;
            vm.expectRevert();
            market.settleRound(header, "", attestations);
        }
        BatchHeader memory good = batchOf(jobId, 0, 0, true);
        good.epoch = 1;
        market.settleRound(good, "", attestations);
    }

    function test_OnAnotherChainSignaturesAreWorthNothing() external {
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, "", 0);
        vm.chainId(143);
        vm.expectRevert();
        market.settleRound(header, "", attestations);
        settle(jobId, true, ""); // Signed for the chain that it now is.
    }

    function test_ASetThatWasReplacedSettlesForAGracePeriod() external {
        BatchHeader memory header = nextBatch(jobId, true);
        Attestation[] memory attestations = attest(header, "", 0);
        uint64 end = time();
        delete attestorKeys;
        attestorKeys.push(0xB1);
        vm.prank(registry);
        market.beginEpoch(attestors(), 1);
        (,, uint64 goodUntil) = market.getEpoch(1);
        vm.assertEq(goodUntil, end + GRACE);

        vm.warp(end + GRACE);
        vm.expectRevert(abi.encodeWithSelector(EpochNotGood.selector, 1, end + GRACE));
        market.settleRound(header, "", attestations);
        vm.warp(end + GRACE - 1);
        market.settleRound(header, "", attestations);
    }

    function test_AnUnknownEpochIsRefused() external {
        for (uint32 epoch = 0; epoch <= 2; epoch += 2) {
            BatchHeader memory header = nextBatch(jobId, true);
            header.epoch = epoch;
            Attestation[] memory attestations = attest(header, "", 0);
            vm.expectRevert(abi.encodeWithSelector(EpochNotGood.selector, epoch, 0));
            market.settleRound(header, "", attestations);
        }
    }

    /*//////////////////////////////////////////////////////////////
                            JOBS AND PAUSES
    //////////////////////////////////////////////////////////////*/

    function test_AJobThatIsOverOrUnknownSettlesNothing() external {
        close(jobId);
        expectRefused("", abi.encodeWithSelector(JobIsClosed.selector, jobId));
        BatchHeader memory header = batchOf(9, 0, 0, true);
        vm.expectRevert(abi.encodeWithSelector(UnknownJob.selector, 9));
        market.settleRound(header, "", new Attestation[](0));
    }

    function test_APauseStopsSettlement_AndMakesNothingStale() external {
        BatchHeader memory header = nextBatch(jobId, true);
        bytes memory one = receipt(jobId, 0, 1, 1000);
        Attestation[] memory attestations = attest(header, one, 10_000);
        replaceKey(0x3000);
        vm.prank(registry);
        market.beginEpoch(attestors(), 2);
        later(GRACE / 2);
        pauseSettlement();
        uint64 until = time() + PAUSE;
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(IsPaused.selector, until));
        market.settleRound(header, one, attestations);

        vm.warp(until + GRACE / 2 - 1); // Of the grace, half ran before the pause, half after it.
        market.settleRound(header, one, attestations);
        vm.assertEq(creditOf(1), 5000);
        later(1);
        bytes memory late = receipt(jobId, 1, 1, 1000);
        expectRefused(late, abi.encodeWithSelector(HotKeyExpired.selector, 1, 1_700_000_000));
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
