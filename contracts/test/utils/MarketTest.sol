// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market, Token} from "./Market.sol";
import {
    IComputeMarket,
    IComputeMarketErrors,
    IComputeMarketEvents,
    IComputeMarketTypes
} from "../../src/interfaces/IComputeMarket.sol";
import {Signing} from "./Signing.sol";
import {vm} from "./Vm.sol";

/// @notice A market with three attestors, of which two must sign, and the acts of its people.
/// @dev People are private keys: operators OPERATOR, OPERATOR + 1 ..., each node's hot key HOT + node id.
abstract contract MarketTest is IComputeMarketErrors, IComputeMarketEvents {
    uint256 internal constant OPERATOR = 0x1000;
    uint256 internal constant HOT = 0x2000;
    uint128 internal constant MIN_STAKE = 100e6;
    uint128 internal constant ESCROW = 1_000e6;
    uint128 internal constant RATE = 5;
    uint64 internal constant CAPACITY = 1_000_000;
    uint64 internal constant EXIT_NOTICE = 1 hours;
    uint64 internal constant UNBONDING = 7 days;
    uint64 internal constant FAR = 2_000_000_000;
    bytes32 internal constant SPEC = keccak256("spec");
    bytes32 internal constant BASE = keccak256("base checkpoint");
    bytes32 internal constant EVIDENCE = keccak256("evidence");

    address internal immutable admin = address(0xAD);
    address internal immutable requester = address(0x4E);
    address internal immutable stranger = address(0x57);

    Token internal token;
    Market internal market;
    /// @dev By increasing address, which is the order in which attestations are brought.
    uint256[3] internal attestorKeys;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        attestorKeys = sortedKeys([uint256(0xA1), 0xA2, 0xA3]);
        token = Token(vm.deployCode("TestUSD.sol:TestUSD"));
        market = deployMarket();
        fund(requester);
        fund(stranger);
    }

    function deployMarket() internal returns (Market) {
        bytes memory arguments =
            abi.encode(token, MIN_STAKE, admin, attestors(), uint8(2), EXIT_NOTICE, UNBONDING);
        return Market(vm.deployCode("ComputeMarket.sol:ComputeMarket", arguments));
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
        vm.prank(requester);
        return market.createJob(SPEC, ESCROW, RATE);
    }

    function bidOf(uint256 jobId, uint32 nodeId) internal pure returns (IComputeMarketTypes.Bid memory) {
        return IComputeMarketTypes.Bid({
            jobId: jobId, nodeId: nodeId, rate: RATE, capacity: CAPACITY, expiresAt: FAR, nonce: 0
        });
    }

    function take(uint256 jobId, uint256 operatorKey, IComputeMarketTypes.Bid memory bid) internal {
        (IComputeMarketTypes.Bid[] memory bids, bytes[] memory signatures) = signedBids(operatorKey, bid);
        market.takeBids(jobId, bids, signatures);
    }

    /// @dev A job with `count` seated nodes, ids 1 ..., all of the operator OPERATOR.
    function jobWithNodes(uint256 count) internal returns (uint256 jobId) {
        jobId = postJob();
        for (uint256 i = 0; i < count; ++i) {
            take(jobId, OPERATOR, bidOf(jobId, register(OPERATOR)));
        }
    }

    /// @dev Settles `receipts` of the job's current round and batch.
    function settle(uint256 jobId, bool last, bytes memory receipts) internal {
        IComputeMarketTypes.Job memory job = market.getJob(jobId);
        bytes[] memory signatures = attest(jobId, job.round, job.batch, last, receipts);
        market.settleRound(jobId, job.round, job.batch, last, BASE, receipts, EVIDENCE, signatures);
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

    function signedBids(uint256 operatorKey, IComputeMarketTypes.Bid memory bid)
        internal
        view
        returns (IComputeMarketTypes.Bid[] memory bids, bytes[] memory signatures)
    {
        bids = new IComputeMarketTypes.Bid[](1);
        bids[0] = bid;
        signatures = new bytes[](1);
        signatures[0] = Signing.bid(market, operatorKey, bid);
    }

    /// @dev A packed receipt, signed by the hot key that the node was registered with.
    function receipt(uint256 jobId, uint64 round, uint32 nodeId, uint64 units, uint16 quality)
        internal
        view
        returns (bytes memory)
    {
        Signing.Work memory work = Signing.Work(jobId, round, nodeId, units, BASE, artifactOf(nodeId));
        return Signing.packedReceipt(market, HOT + nodeId, work, quality);
    }

    function artifactOf(uint32 nodeId) internal pure returns (bytes32) {
        return keccak256(abi.encode("artifact", nodeId));
    }

    /// @dev The first two attestors' signatures, in order.
    function attest(uint256 jobId, uint64 round, uint32 batch, bool last, bytes memory receipts)
        internal
        view
        returns (bytes[] memory signatures)
    {
        Signing.Batch memory content =
            Signing.Batch(jobId, round, batch, last, BASE, keccak256(receipts), EVIDENCE);
        signatures = new bytes[](2);
        signatures[0] = Signing.attestation(market, attestorKeys[0], content);
        signatures[1] = Signing.attestation(market, attestorKeys[1], content);
    }

    function attestClosure(uint256 jobId, uint64 rounds, uint128 spent)
        internal
        view
        returns (bytes[] memory signatures)
    {
        signatures = new bytes[](2);
        signatures[0] = Signing.closure(market, attestorKeys[0], jobId, rounds, spent);
        signatures[1] = Signing.closure(market, attestorKeys[1], jobId, rounds, spent);
    }

    /*//////////////////////////////////////////////////////////////
                                HELPERS
    //////////////////////////////////////////////////////////////*/

    function attestors() internal view returns (address[] memory list) {
        list = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            list[i] = vm.addr(attestorKeys[i]);
        }
    }

    function sortedKeys(uint256[3] memory keys) internal pure returns (uint256[3] memory) {
        for (uint256 i = 1; i < 3; ++i) {
            for (uint256 j = i; j > 0 && vm.addr(keys[j]) < vm.addr(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
        return keys;
    }

    /// @dev `value` wrapped into [min, max].
    function bound(uint256 value, uint256 min, uint256 max) internal pure returns (uint256) {
        return value >= min && value <= max ? value : min + value % (max - min + 1);
    }

    function creditOf(uint32 nodeId) internal view returns (uint128) {
        return market.getNodeMetrics(nodeId).credit;
    }
}
