// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketEvents, IComputeMarketTypes} from "../../src/interfaces/IComputeMarket.sol";
import {Market, Token} from "../utils/Market.sol";
import {MarketTest} from "../utils/MarketTest.sol";
import {vm, Vm} from "../utils/Vm.sol";

/// @notice People who act at random, some of them badly, and who remember what the market said it did.
/// @dev Calls that must succeed are made plainly; calls that may be refused are tried, and whatever the market
/// accepts is counted from its events. So an invariant fails if the market accepts what it should refuse.
contract MarketHandler is MarketTest {
    uint256 internal constant OPERATORS = 4;

    /// @dev Payments by (job, round, node), by node and by job, as the events tell.
    mapping(uint256 jobId => mapping(uint64 round => mapping(uint32 nodeId => uint256))) internal payments;
    mapping(uint32 nodeId => uint256) public earned;
    mapping(uint256 jobId => uint256) public spent;
    uint256 public mostPayments;
    uint256 public settledBatches;

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
        if (market.nodeCount() < 12) register(OPERATOR + seed % OPERATORS);
    }

    function renewKey(uint256 seed) external {
        uint32 nodeId = anyNode(seed);
        uint256 key = keyOf(market.getNode(nodeId).operator);
        address hotKey = vm.addr(HOT + nodeId);
        uint64 expiresAt = uint64(block.timestamp) + 1 + uint64(seed % 30 days);
        bytes memory byOperator = signDelegation(key, vm.addr(key), hotKey, expiresAt);
        bytes memory byKey = signDelegation(HOT + nodeId, vm.addr(key), hotKey, expiresAt);
        market.delegateHotKey(nodeId, hotKey, expiresAt, byOperator, byKey);
    }

    function retireNode(uint256 seed) external {
        uint32 nodeId = anyNode(seed);
        IComputeMarketTypes.Node memory node = market.getNode(nodeId);
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
        market.createJob(SPEC, uint128(bound(escrow, 1, ESCROW)), RATE);
    }

    function fundJob(uint256 seed, uint128 amount) external {
        vm.prank(stranger);
        try market.fundJob(anyJob(seed), uint128(bound(amount, 1, ESCROW))) {} catch {}
    }

    function takeBid(uint256 seed, uint128 rate) external {
        uint32 nodeId = anyNode(seed);
        IComputeMarketTypes.Bid memory bid = bidOf(0, nodeId);
        bid.rate = uint128(bound(rate, 0, RATE + 1));
        uint256 key = keyOf(market.getNode(nodeId).operator);
        (IComputeMarketTypes.Bid[] memory bids, bytes[] memory signatures) = signedBids(key, bid);
        try market.takeBids(anyJob(seed >> 32), bids, signatures) {} catch {}
    }

    function closeJob(uint256 seed) external {
        uint256 jobId = anyJob(seed);
        IComputeMarketTypes.Job memory job = market.getJob(jobId);
        if (settledBatches < 4) return;
        bytes[] memory signatures = attestClosure(jobId, job.round, job.spent);
        try market.closeJob(jobId, job.round, job.spent, signatures) {} catch {}
    }

    function requestExit(uint256 seed) external {
        if (settledBatches < 4) return;
        vm.prank(requester);
        try market.requestExit(anyJob(seed)) {} catch {}
    }

    function exitJob(uint256 seed) external {
        vm.prank(requester);
        try market.exitJob(anyJob(seed)) {} catch {}
    }

    /*//////////////////////////////////////////////////////////////
                               SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @dev A batch for the current round of any nodes, seated or not, now and then one of them twice. The
    /// attestors vouch for all of it: what is refused, the market refuses.
    function settleRound(uint256 jobSeed, uint256 nodeSeed, uint64 units, bool last) external {
        uint256 jobId = anyJob(jobSeed);
        IComputeMarketTypes.Job memory job = market.getJob(jobId);
        bytes memory receipts;
        for (uint256 i = 0; i < nodeSeed % 4; ++i) {
            uint32 nodeId = anyNode(nodeSeed >> (8 * (i + 1)));
            uint64 claimed = uint64(bound(units, 1, CAPACITY + CAPACITY / 8));
            receipts = abi.encodePacked(
                receipts, receipt(jobId, job.round, nodeId, claimed, uint16(nodeSeed % 10_001))
            );
        }
        bytes[] memory signatures = attest(jobId, job.round, job.batch, last, receipts);
        bringBatch(
            abi.encodeCall(
                market.settleRound, (jobId, job.round, job.batch, last, BASE, receipts, EVIDENCE, signatures)
            )
        );
    }

    /// @dev The nodes that are seated, and paid for nothing yet: settles most of the time.
    function settleHonestly(uint256 jobSeed, uint64 units, bool last) external {
        uint256 jobId = anyJob(jobSeed);
        IComputeMarketTypes.Job memory job = market.getJob(jobId);
        bytes memory receipts;
        for (uint32 nodeId = 1; nodeId <= market.nodeCount(); ++nodeId) {
            IComputeMarketTypes.Seat memory seat = market.getSeat(jobId, nodeId);
            bool expired = market.getNode(nodeId).expiresAt <= block.timestamp;
            if (seat.capacity == 0 || seat.paidRound > job.round || expired) continue;
            uint64 claimed = uint64(bound(units, 1, 1000));
            receipts = abi.encodePacked(receipts, receipt(jobId, job.round, nodeId, claimed, 9_000));
        }
        bytes[] memory signatures = attest(jobId, job.round, job.batch, last, receipts);
        bringBatch(
            abi.encodeCall(
                market.settleRound, (jobId, job.round, job.batch, last, BASE, receipts, EVIDENCE, signatures)
            )
        );
    }

    function bringTheSameAgain() external {
        if (lastCall.length != 0) bringBatch(lastCall);
    }

    function bringBatch(bytes memory data) internal {
        vm.recordLogs();
        (bool success,) = address(market).call(data);
        if (!success) return;
        lastCall = data;
        ++settledBatches;
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
        spent[jobId] += amount;
    }

    /*//////////////////////////////////////////////////////////////
                              CREDIT, TIME
    //////////////////////////////////////////////////////////////*/

    function withdraw(uint256 seed, uint128 amount) external {
        uint32 nodeId = anyNode(seed);
        uint128 credit = creditOf(nodeId);
        if (credit == 0) return;
        address operator = market.getNode(nodeId).operator;
        vm.prank(operator);
        market.withdraw(nodeId, uint128(bound(amount, 1, credit)), operator);
    }

    function distributePayments(uint256 seed) external {
        uint32[] memory nodeIds = new uint32[](3);
        for (uint256 i = 0; i < 3; ++i) {
            nodeIds[i] = anyNode(seed >> (8 * i));
        }
        market.distributePayments(nodeIds);
    }

    function passTime(uint256 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, UNBONDING));
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
