// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market, Token} from "./Market.sol";
import {
    IComputeMarketErrors,
    IComputeMarketEvents,
    IComputeMarketTypes
} from "../../src/interfaces/IComputeMarket.sol";
import {Signing} from "./Signing.sol";
import {vm} from "./Vm.sol";

/// @notice A market with three attestors, of which two must open, and the acts of its people. Registry and court
/// are plain addresses: what they may do is tested here, when they do it, beside them.
/// @dev People are private keys: operators OPERATOR, OPERATOR + 1 ..., each node's hot key HOT + node id.
abstract contract MarketTest is IComputeMarketTypes, IComputeMarketErrors, IComputeMarketEvents {
    uint256 internal constant REQUESTER = 0x4E;
    uint256 internal constant COORDINATOR = 0xC00;
    uint256 internal constant OPERATOR = 0x1000;
    uint256 internal constant HOT = 0x2000;
    uint128 internal constant MIN_STAKE = 100e6;
    uint128 internal constant ESCROW = 1_000e6;
    uint96 internal constant RATE = 5;
    uint64 internal constant CAPACITY = 1_000_000;
    uint48 internal constant MAX_UNITS = type(uint48).max;
    uint64 internal constant EXIT_NOTICE = 25 hours;
    uint64 internal constant UNBONDING = 7 days;
    uint64 internal constant WINDOW = 30 minutes;
    uint64 internal constant DISPUTE = 1 days;
    uint64 internal constant GRACE = 1 days;
    uint64 internal constant PAUSE = 3 days;
    uint64 internal constant FAR = 2_000_000_000;
    bytes32 internal constant SPEC = keccak256("spec");
    bytes32 internal constant BASE = keccak256("base checkpoint");
    bytes32 internal constant EVIDENCE = keccak256("evidence");

    address internal immutable timelock = address(0xAD);
    address internal immutable guardian = address(0x6A);
    address internal immutable registry = address(0x4E6);
    address internal immutable court = address(0xC0);
    address internal immutable coordinator = vm.addr(COORDINATOR);
    address internal immutable requester = vm.addr(REQUESTER);
    address internal immutable stranger = address(0x57);

    Token internal token;
    Market internal market;
    uint256[] internal attestorKeys;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        for (uint256 i = 0; i < 3; ++i) {
            attestorKeys.push(0xA1 + i);
        }
        token = Token(vm.deployCode("TestUSD.sol:TestUSD"));
        market = deployMarket(address(token));
        fund(requester);
        fund(stranger);
    }

    /// @dev Connected, and with an epoch begun.
    function deployMarket(address token_) internal returns (Market deployed) {
        bytes memory arguments = abi.encode(token_, standardTerms(), timelock, guardian, address(this));
        deployed = Market(vm.deployCode("ComputeMarket.sol:ComputeMarket", arguments));
        deployed.connect(registry, court, coordinator);
        vm.prank(registry);
        deployed.beginEpoch(attestors(), 2);
    }

    function standardTerms() internal pure returns (Terms memory) {
        return Terms({
            minStake: MIN_STAKE,
            exitNotice: EXIT_NOTICE,
            unbondingTime: UNBONDING,
            challengeWindow: WINDOW,
            disputeTime: DISPUTE,
            instantShare: 5_000
        });
    }

    function fund(address owner) internal {
        token.mint(owner, 1e18);
        vm.prank(owner);
        token.approve(address(market), type(uint256).max);
    }

    /*//////////////////////////////////////////////////////////////
                             ACTS OF PEOPLE
    //////////////////////////////////////////////////////////////*/

    /// @dev The operator's next node, with just enough stake.
    function register(uint256 operatorKey) internal returns (uint32 nodeId) {
        uint256 hotKey = HOT + market.nodeCount() + 1;
        address operator = vm.addr(operatorKey);
        if (token.balanceOf(operator) == 0) fund(operator);
        bytes memory possession = signDelegation(hotKey, operator, vm.addr(hotKey), FAR);
        vm.prank(operator);
        return market.registerNode(vm.addr(hotKey), FAR, MIN_STAKE, possession);
    }

    function postJob() internal returns (uint256 jobId) {
        return postJob(ESCROW, RATE);
    }

    function postJob(uint128 escrow, uint96 maxRate) internal returns (uint256 jobId) {
        vm.prank(requester);
        return market.createJob(SPEC, escrow, maxRate);
    }

    function bidOf(uint256 jobId, uint32 nodeId) internal pure returns (Bid memory) {
        return Bid({jobId: jobId, nodeId: nodeId, rate: RATE, capacity: CAPACITY, expiresAt: FAR, nonce: 0});
    }

    function take(uint256 jobId, uint256 operatorKey, Bid memory bid) internal {
        (Bid[] memory bids, bytes[] memory signatures) = signedBids(operatorKey, bid);
        vm.prank(coordinator);
        market.takeBids(jobId, bids, signatures, MAX_UNITS, "");
    }

    /// @dev A job with `count` seated nodes, ids 1 ..., all of the operator OPERATOR.
    function jobWithNodes(uint256 count) internal returns (uint256 jobId) {
        jobId = postJob();
        for (uint256 i = 0; i < count; ++i) {
            take(jobId, OPERATOR, bidOf(jobId, register(OPERATOR)));
        }
    }

    /// @dev Settles `receipts` as the job's next batch, at full quality.
    function settle(uint256 jobId, bool last, bytes memory receipts) internal {
        settle(jobId, last, receipts, 10_000);
    }

    function settle(uint256 jobId, bool last, bytes memory receipts, uint16 quality) internal {
        BatchHeader memory header = nextBatch(jobId, last);
        market.settleRound(header, receipts, attest(header, receipts, quality));
    }

    function pauseSettlement() internal {
        vm.prank(guardian);
        market.pause(false, true);
    }

    /// @dev `elapsed` seconds later. The compiler may read `block.timestamp` once for a whole test.
    function later(uint256 elapsed) internal {
        vm.warp(vm.getBlockTimestamp() + elapsed);
    }

    function time() internal view returns (uint64) {
        return uint64(vm.getBlockTimestamp());
    }

    /*//////////////////////////////////////////////////////////////
                               SIGNATURES
    //////////////////////////////////////////////////////////////*/

    function signDelegation(uint256 key, address operator, address hotKey, uint64 expiresAt)
        internal
        view
        returns (bytes memory)
    {
        return Signing.delegation(market, key, operator, hotKey, expiresAt, market.delegationNonce(hotKey));
    }

    function signedBids(uint256 operatorKey, Bid memory bid)
        internal
        view
        returns (Bid[] memory bids, bytes[] memory signatures)
    {
        bids = new Bid[](1);
        bids[0] = bid;
        signatures = new bytes[](1);
        signatures[0] = Signing.bid(market, operatorKey, bid);
    }

    /// @dev A packed receipt, signed by the hot key that the node was registered with.
    function receipt(uint256 jobId, uint64 round, uint32 nodeId, uint64 units)
        internal
        view
        returns (bytes memory)
    {
        Signing.Work memory work = Signing.Work(jobId, round, nodeId, units, BASE, artifactOf(nodeId));
        return Signing.packedReceipt(market, HOT + nodeId, work);
    }

    function artifactOf(uint32 nodeId) internal pure returns (bytes32) {
        return keccak256(abi.encode("artifact", nodeId));
    }

    function nextBatch(uint256 jobId, bool last) internal view returns (BatchHeader memory) {
        Job memory job = market.getJob(jobId);
        return batchOf(jobId, job.round, job.batch, last);
    }

    function batchOf(uint256 jobId, uint64 round, uint32 batch, bool last)
        internal
        view
        returns (BatchHeader memory)
    {
        (uint32 epoch,,) = market.getAttestors();
        return BatchHeader({
            jobId: jobId, round: round, batch: batch, last: last, epoch: epoch, base: BASE, evidence: EVIDENCE
        });
    }

    /// @dev The first two attestors, with one score for all receipts.
    function attest(BatchHeader memory header, bytes memory receipts, uint16 quality)
        internal
        view
        returns (Attestation[] memory)
    {
        bytes[] memory scores = new bytes[](2);
        scores[0] = scores[1] = sameScores(receipts, quality);
        return attest(header, receipts, scores, 3);
    }

    /// @dev Members 0, 1 ... with these packed scores; member `i` opens if bit `i` of `opens` is set.
    function attest(BatchHeader memory header, bytes memory receipts, bytes[] memory scores, uint256 opens)
        internal
        view
        returns (Attestation[] memory attestations)
    {
        attestations = new Attestation[](scores.length);
        bytes memory commitments;
        for (uint8 i = 0; i < scores.length; ++i) {
            bytes32 salt = keccak256(abi.encode("salt", i));
            bytes32 commitment = keccak256(abi.encodePacked(vm.addr(attestorKeys[i]), salt, scores[i]));
            commitments = abi.encodePacked(commitments, i, commitment);
            attestations[i] = opens >> i & 1 == 1
                ? Attestation(i, salt, scores[i], "")
                : Attestation(i, commitment, "", "");
        }
        for (uint256 i = 0; i < scores.length; ++i) {
            if (opens >> i & 1 == 0) continue;
            attestations[i].signature = Signing.attestation(
                market, attestorKeys[i], header, keccak256(receipts), keccak256(commitments)
            );
        }
    }

    function sameScores(bytes memory receipts, uint16 quality) internal pure returns (bytes memory scores) {
        scores = new bytes(2 * (receipts.length / 109));
        for (uint256 i = 0; i < scores.length; i += 2) {
            (scores[i], scores[i + 1]) = (bytes1(uint8(quality >> 8)), bytes1(uint8(quality)));
        }
    }

    /// @dev By the first two attestors of the current epoch.
    function attestClosure(uint256 jobId, uint64 rounds, uint128 spent)
        internal
        view
        returns (Attestation[] memory attestations)
    {
        (uint32 epoch,,) = market.getAttestors();
        attestations = new Attestation[](2);
        for (uint8 i = 0; i < 2; ++i) {
            bytes memory signature = Signing.closure(market, attestorKeys[i], jobId, rounds, spent, epoch);
            attestations[i] = Attestation(i, 0, "", signature);
        }
    }

    function close(uint256 jobId) internal {
        Job memory job = market.getJob(jobId);
        (uint32 epoch,,) = market.getAttestors();
        market.closeJob(jobId, job.round, job.spent, epoch, attestClosure(jobId, job.round, job.spent));
    }

    /*//////////////////////////////////////////////////////////////
                                HELPERS
    //////////////////////////////////////////////////////////////*/

    function attestors() internal view returns (address[] memory list) {
        list = new address[](attestorKeys.length);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = vm.addr(attestorKeys[i]);
        }
    }

    /// @dev `value` wrapped into [min, max].
    function bound(uint256 value, uint256 min, uint256 max) internal pure returns (uint256) {
        return value >= min && value <= max ? value : min + value % (max - min + 1);
    }

    function ids(uint32 nodeId) internal pure returns (uint32[] memory list) {
        list = new uint32[](1);
        list[0] = nodeId;
    }

    function creditOf(uint32 nodeId) internal view returns (uint128) {
        return market.getNodeMetrics(nodeId).credit;
    }

    function withdrawableOf(uint32 nodeId) internal view returns (uint128) {
        return market.getNodeMetrics(nodeId).withdrawable;
    }

    /// @dev What the market holds is what it says that it owes.
    function checkHoldings() internal view {
        (uint128 escrow, uint128 credit, uint128 stake, uint128 owed, uint128 insurance) = market.holdings();
        uint256 sum = uint256(escrow) + credit + stake + owed + insurance;
        vm.assertEq(token.balanceOf(address(market)), sum, "balance differs from the holdings");
    }
}
