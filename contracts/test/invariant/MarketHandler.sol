// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketEvents} from "../../src/interfaces/IComputeMarket.sol";
import {Market, Token} from "../utils/Market.sol";
import {MarketTest} from "../utils/MarketTest.sol";
import {Signing} from "../utils/Signing.sol";
import {vm, Vm} from "../utils/Vm.sol";

/// @notice People who act at random, some of them badly, and who remember what the market said it did.
/// @dev Calls that must succeed are made plainly; calls that may be refused are tried, and whatever the market
/// accepts is counted from its events. So an invariant fails if the market accepts what it should refuse.
contract MarketHandler is MarketTest {
    uint256 internal constant OPERATORS = 4;

    /// @dev Payments by (job, round, node), and what came to each node and went from it, as the events tell.
    mapping(uint256 jobId => mapping(uint64 round => mapping(uint32 nodeId => uint256))) internal payments;
    mapping(uint32 nodeId => uint256) public earned;
    mapping(uint32 nodeId => uint256) public taken;
    mapping(address operator => bool) public wasSlashed;
    mapping(uint32 nodeId => uint256) internal keyOfNode;
    uint256 public mostPayments;
    uint256 internal cases;
    mapping(uint32 nodeId => uint128) internal held;
    uint256 internal freshKey = 0x9000;

    /// @dev The last batch that was accepted, to be brought again.
    bytes internal lastCall;

    function setUp() public override {
        super.setUp();
        uint256 jobId = postJob();
        for (uint256 i = 0; i < OPERATORS; ++i) {
            take(jobId, OPERATOR + i, bidOf(jobId, register(OPERATOR + i)));
        }
    }

    /*//////////////////////////////////////////////////////////////
                                OPERATORS
    //////////////////////////////////////////////////////////////*/

    function registerNode(uint256 seed) external {
        if (market.nodeCount() >= 12) return;
        // An operator that was slashed may have too little stake for one node more.
        address operator = vm.addr(OPERATOR + seed % OPERATORS);
        uint256 required = uint256(MIN_STAKE) * market.getOperator(operator).activeNodes;
        if (market.getOperator(operator).stake >= required) register(OPERATOR + seed % OPERATORS);
    }

    function renewKey(uint256 seed) external {
        uint32 nodeId = anyNode(seed);
        delegate(nodeId, hotKeyOf(nodeId), uint64(vm.getBlockTimestamp()) + 1 + uint64(seed % 30 days));
    }

    function replaceKey(uint256 seed) external {
        uint32 nodeId = anyNode(seed);
        delegate(nodeId, ++freshKey, FAR);
        keyOfNode[nodeId] = freshKey;
    }

    function delegate(uint32 nodeId, uint256 hotKey, uint64 expiresAt) internal {
        uint256 key = keyOf(market.getNode(nodeId).operator);
        bytes memory byOperator = signDelegation(key, vm.addr(key), vm.addr(hotKey), expiresAt);
        bytes memory byKey = signDelegation(hotKey, vm.addr(key), vm.addr(hotKey), expiresAt);
        vm.prank(vm.addr(key));
        market.delegateHotKey(nodeId, vm.addr(hotKey), expiresAt, byOperator, byKey);
    }

    function hotKeyOf(uint32 nodeId) internal view returns (uint256) {
        return keyOfNode[nodeId] == 0 ? HOT + nodeId : keyOfNode[nodeId];
    }

    /// @dev By the key that the node has now, or had at first.
    function signed(uint256 jobId, uint64 round, uint32 nodeId, uint64 units, bool first)
        internal
        view
        returns (bytes memory)
    {
        Signing.Work memory work = Signing.Work(jobId, round, nodeId, units, BASE, artifactOf(nodeId));
        return Signing.packedReceipt(market, first ? HOT + nodeId : hotKeyOf(nodeId), work);
    }

    function retireNode(uint256 seed) external {
        uint32 nodeId = anyNode(seed);
        Node memory node = market.getNode(nodeId);
        if (seed % 4 != 0 || node.retiredAt != 0) return;
        vm.prank(node.operator);
        market.retireNode(nodeId);
    }

    function addStake(uint256 seed, uint128 amount) external {
        vm.prank(vm.addr(OPERATOR + seed % OPERATORS));
        market.addStake(uint128(bound(amount, 1, 1e12)));
    }

    function requestUnstake(uint256 seed, uint128 amount) external {
        address operator = vm.addr(OPERATOR + seed % OPERATORS);
        vm.prank(operator);
        try market.requestUnstake(uint128(bound(amount, 1, 2 * MIN_STAKE))) {} catch {}
    }

    function unstake() external {
        for (uint256 i = 0; i < OPERATORS; ++i) {
            vm.prank(vm.addr(OPERATOR + i));
            try market.unstake() {} catch {}
        }
    }

    /*//////////////////////////////////////////////////////////////
                                  JOBS
    //////////////////////////////////////////////////////////////*/

    function createJob(uint128 escrow) external {
        if (market.jobCount() >= 6) return;
        vm.prank(requester);
        try market.createJob(SPEC, uint128(bound(escrow, 1, ESCROW)), RATE) {} catch {} // Paused, perhaps.
    }

    function fundJob(uint256 seed, uint128 amount) external {
        uint256 jobId = anyJob(seed);
        vm.prank(stranger);
        try market.fundJob(jobId, uint128(bound(amount, 1, ESCROW))) {} catch {}
    }

    function takeBid(uint256 seed, uint128 rate) external {
        uint32 nodeId = anyNode(seed);
        Bid memory bid = bidOf(0, nodeId);
        bid.rate = uint128(bound(rate, 0, RATE + 1));
        uint256 key = keyOf(market.getNode(nodeId).operator);
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(key, bid);
        uint256 jobId = anyJob(seed >> 32);
        vm.prank(coordinator);
        try market.takeBids(jobId, bids, signatures, type(uint48).max, "") {} catch {}
    }

    function closeJob(uint256 seed) external {
        uint256 jobId = anyJob(seed);
        Job memory job = market.getJob(jobId);
        if (mostPayments == 0) return;
        Attestation[] memory attestations = attestClosure(jobId, job.round, job.spent);
        if (job.closed || job.batch != 0 || job.records != 0) return;
        market.closeJob(jobId, job.round, job.spent, 1, attestations); // Whatever is paused.
    }

    function requestExit(uint256 seed) external {
        if (mostPayments == 0) return;
        uint256 jobId = anyJob(seed);
        vm.prank(requester);
        try market.requestExit(jobId) {} catch {}
    }

    function exitJob(uint256 seed) external {
        uint256 jobId = anyJob(seed);
        vm.prank(requester);
        try market.exitJob(jobId) {} catch {}
    }

    /*//////////////////////////////////////////////////////////////
                               SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @dev A batch for the current round of any nodes, seated or not, now and then one of them twice. The
    /// attestors vouch for all of it: what is refused, the market refuses.
    function settleRound(uint256 jobSeed, uint256 nodeSeed, uint64 units, bool last) external {
        uint256 jobId = anyJob(jobSeed);
        BatchHeader memory header = nextBatch(jobId, last);
        bytes memory receipts;
        for (uint256 i = 0; i < nodeSeed % 4; ++i) {
            uint32 nodeId = anyNode(nodeSeed >> (8 * (i + 1)));
            uint64 claimed = uint64(bound(units, 1, CAPACITY + CAPACITY / 8));
            receipts = abi.encodePacked(
                receipts, signed(jobId, header.round, nodeId, claimed, nodeSeed >> 200 & 3 == 0)
            );
        }
        Attestation[] memory attestations = attest(header, receipts, uint16(nodeSeed % 10_001));
        bring(abi.encodeCall(market.settleRound, (header, receipts, attestations)));
    }

    /// @dev Seated nodes that the round has not passed, in order: settles most of the time.
    function settleHonestly(uint256 jobSeed, uint64 units, bool last) external {
        uint256 jobId = jobSeed % 2 == 0 ? 1 : anyJob(jobSeed); // The first has seats from the start.
        BatchHeader memory header = nextBatch(jobId, last);
        bytes memory receipts;
        for (uint32 nodeId = market.getJob(jobId).lastNode + 1; nodeId <= market.nodeCount(); ++nodeId) {
            bool expired = market.getNode(nodeId).expiresAt <= vm.getBlockTimestamp();
            if (market.getSeat(jobId, nodeId).capacity == 0 || expired) continue;
            uint64 claimed = uint64(bound(units, 1, 1000));
            receipts = abi.encodePacked(receipts, signed(jobId, header.round, nodeId, claimed, false));
        }
        Attestation[] memory attestations = attest(header, receipts, 9_000);
        bring(abi.encodeCall(market.settleRound, (header, receipts, attestations)));
    }

    function bringTheSameAgain() external {
        if (lastCall.length != 0) bring(lastCall);
    }

    function submitContribution(uint256 jobSeed, uint256 nodeSeed, uint64 units) external {
        uint256 jobId = anyJob(jobSeed);
        uint32 nodeId = anyNode(nodeSeed);
        uint64 round = market.getJob(jobId).round + uint64(nodeSeed % 3);
        bytes memory item = signed(jobId, round, nodeId, uint64(bound(units, 1, CAPACITY)), false);
        try market.submitContribution(jobId, round, BASE, item) {} catch {}
    }

    function lapseRecord(uint256 jobSeed, uint256 nodeSeed) external {
        try market.lapseRecord(anyJob(jobSeed), anyNode(nodeSeed)) {} catch {}
    }

    /// @dev A batch that was taken once. Its payments are counted from the events.
    function bring(bytes memory data) internal {
        vm.recordLogs();
        (bool success,) = address(market).call(data);
        if (!success) return;
        lastCall = data;
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == IComputeMarketEvents.ContributionSettled.selector) count(logs[i]);
        }
    }

    function count(Vm.Log memory log) internal {
        uint256 jobId = uint256(log.topics[1]);
        uint64 round = uint64(uint256(log.topics[2]));
        uint32 nodeId = uint32(uint256(log.topics[3]));
        (,, uint128 amount,) = abi.decode(log.data, (uint64, uint16, uint128, bytes32));
        uint256 paid = ++payments[jobId][round][nodeId];
        if (paid > mostPayments) mostPayments = paid;
        earned[nodeId] += amount;
    }

    /*//////////////////////////////////////////////////////////////
                                 COURT
    //////////////////////////////////////////////////////////////*/

    function disputeRecord(uint256 jobSeed, uint256 nodeSeed) external {
        (uint256 jobId, uint32 nodeId) = (anyJob(jobSeed), anyNode(nodeSeed));
        Seat memory seat = market.getSeat(jobId, nodeId);
        if (seat.recordedRound == 0) return;
        vm.startPrank(court);
        if (seat.claimed) market.dropRecord(jobId, nodeId);
        else try market.holdRecord(jobId, seat.recordedRound - 1, nodeId) {} catch {}
        vm.stopPrank();
    }

    function penalize(uint256 seed, uint128 restitution, uint128 penalty) external {
        if (mostPayments == 0 || seed % 4 != 0) return;
        uint32 nodeId = anyNode(seed >> 8);
        uint256 jobId = anyJob(seed >> 16);
        if (market.getSeat(jobId, nodeId).capacity == 0) return;
        restitution = uint128(bound(restitution, 0, 2_000_000));
        penalty = uint128(bound(penalty, 0, MIN_STAKE / 8));
        uint256 credit = creditOf(nodeId);
        wasSlashed[market.getNode(nodeId).operator] = true;
        vm.prank(court);
        market.penalize(
            Penalty({
                caseId: ++cases,
                jobId: jobId,
                nodeId: nodeId,
                restitution: restitution,
                penalty: penalty,
                challenger: stranger,
                costs: penalty / 4
            })
        );
        taken[nodeId] += credit - creditOf(nodeId);
        vm.assertLe(credit - creditOf(nodeId), uint256(restitution) + penalty, "took too much");
    }

    function holdCredit(uint256 seed, uint128 amount) external {
        uint32 nodeId = anyNode(seed);
        amount = uint128(bound(amount, 0, 1e6));
        if (held[nodeId] != 0) amount = held[nodeId];
        vm.prank(court);
        if (held[nodeId] != 0) market.freeCredit(nodeId, amount);
        else market.holdCredit(nodeId, amount);
        held[nodeId] = held[nodeId] == 0 ? amount : 0;
    }

    function award(uint256 seed, uint64 units) external {
        (uint256 jobId, uint32 nodeId) = (anyJob(seed), anyNode(seed >> 8));
        if (market.getSeat(jobId, nodeId).capacity == 0 || market.getJob(jobId).round == 0) return;
        vm.prank(court);
        earned[nodeId] += market.award(++cases, jobId, 0, nodeId, uint64(bound(units, 0, 1000)), 1, 5_000);
    }

    /*//////////////////////////////////////////////////////////////
                              CREDIT, TIME
    //////////////////////////////////////////////////////////////*/

    /// @dev Never refused: a pause does not matter.
    function withdraw(uint256 seed, uint128 amount) external {
        uint32 nodeId = anyNode(seed);
        uint128 withdrawable = withdrawableOf(nodeId);
        if (withdrawable == 0) return;
        amount = uint128(bound(amount, 1, withdrawable));
        address operator = market.getNode(nodeId).operator;
        vm.prank(operator);
        market.withdraw(nodeId, amount, operator);
        taken[nodeId] += amount;
    }

    function distributePayments(uint256 seed) external {
        for (uint256 i = 0; i < 3; ++i) {
            uint32 nodeId = anyNode(seed >> (8 * i));
            uint128 credit = creditOf(nodeId);
            market.distributePayments(ids(nodeId));
            taken[nodeId] += credit - creditOf(nodeId);
        }
    }

    function collect(bool byRequester) external {
        address account = byRequester ? requester : stranger;
        if (market.owedTo(account) == 0) return;
        vm.prank(account);
        market.collect();
    }

    function pause(uint256 seed) external {
        if (seed % 8 != 0 || mostPayments == 0) return;
        vm.prank(guardian);
        if (seed % 16 == 0) market.unpause();
        else try market.pause(seed & 32 == 0, seed & 64 == 0) {} catch {}
    }

    function passTime(uint256 duration) external {
        vm.warp(vm.getBlockTimestamp() + bound(duration, 1, duration % 4 == 0 ? UNBONDING : WINDOW));
    }

    /*//////////////////////////////////////////////////////////////
                                 LOOK-UPS
    //////////////////////////////////////////////////////////////*/

    function theMarket() external view returns (Market) {
        return market;
    }

    function theToken() external view returns (Token) {
        return token;
    }

    function theRequester() external view returns (address) {
        return requester;
    }

    function theChallenger() external view returns (address) {
        return stranger;
    }

    function operatorAt(uint256 index) external pure returns (address) {
        return vm.addr(OPERATOR + index);
    }

    function operatorCount() external pure returns (uint256) {
        return OPERATORS;
    }

    function anyNode(uint256 seed) internal view returns (uint32) {
        return uint32(1 + seed % market.nodeCount());
    }

    function anyJob(uint256 seed) internal view returns (uint256) {
        return 1 + seed % market.jobCount();
    }

    function keyOf(address operator) internal pure returns (uint256 key) {
        key = OPERATOR;
        while (vm.addr(key) != operator) ++key;
    }
}
