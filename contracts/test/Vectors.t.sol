// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IComputeMarketTypes} from "../src/interfaces/IComputeMarket.sol";
import {MessageHashes} from "../src/libraries/MessageHashes.sol";
import {PackedReceipts} from "../src/libraries/PackedReceipts.sol";
import {Market} from "./utils/Market.sol";
import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

/// @notice Holds Solidity to tests/vectors/protocol.json, which Python and TypeScript are held to as well.
contract VectorsTest is MarketTest {
    string internal json;

    function setUp() public override {
        super.setUp();
        json = vm.readFile("../tests/vectors/protocol.json");
        vm.chainId(vm.parseJsonUint(json, ".domain.chainId"));
    }

    function readUint(string memory key) internal view returns (uint256) {
        return vm.parseJsonUint(json, key);
    }

    function readHash(string memory key) internal view returns (bytes32) {
        return vm.parseJsonBytes32(json, key);
    }

    function verifier() internal view returns (address) {
        return vm.parseJsonAddress(json, ".domain.verifyingContract");
    }

    /*//////////////////////////////////////////////////////////////
                                 HASHES
    //////////////////////////////////////////////////////////////*/

    function test_DomainSeparator() external view {
        bytes32 separator = Signing.domainSeparator(readUint(".domain.chainId"), verifier());
        vm.assertEq(separator, readHash(".domainSeparator"));
        vm.assertEq(vm.parseJsonString(json, ".domain.name"), "HyperGPU");
        vm.assertEq(vm.parseJsonString(json, ".domain.version"), "1");
    }

    function check(string memory name, bytes32 structHash) internal view {
        string memory prefix = string.concat(".messages.", name);
        bytes32 digest = Signing.digest(verifier(), structHash);
        vm.assertEq(digest, readHash(string.concat(prefix, ".digest")), name);
        bytes memory signature = vm.parseJsonBytes(json, string.concat(prefix, ".signature"));
        address signer = vm.parseJsonAddress(json, string.concat(prefix, ".signer"));
        vm.assertEq(ECDSA.recover(digest, signature), signer, name);
    }

    function test_Delegation() external view {
        string memory path = ".messages.delegation.message.";
        address operator = vm.parseJsonAddress(json, string.concat(path, "operator"));
        address hotKey = vm.parseJsonAddress(json, string.concat(path, "hotKey"));
        uint64 expiresAt = uint64(readUint(string.concat(path, "expiresAt")));
        uint64 nonce = uint64(readUint(string.concat(path, "nonce")));
        check("delegation", MessageHashes.delegation(operator, hotKey, expiresAt, nonce));
    }

    function test_WorkOrder() external view {
        string memory path = ".messages.work_order.message.";
        check(
            "work_order",
            Signing.workOrder(
                readUint(string.concat(path, "jobId")),
                uint64(readUint(string.concat(path, "round"))),
                uint32(readUint(string.concat(path, "nodeId"))),
                uint64(readUint(string.concat(path, "fence"))),
                uint64(readUint(string.concat(path, "deadline"))),
                readHash(string.concat(path, "base")),
                readHash(string.concat(path, "body"))
            )
        );
    }

    function test_Receipt() external view {
        string memory path = ".messages.receipt.message.";
        check(
            "receipt",
            MessageHashes.receipt(
                readUint(string.concat(path, "jobId")),
                uint64(readUint(string.concat(path, "round"))),
                uint32(readUint(string.concat(path, "nodeId"))),
                uint64(readUint(string.concat(path, "units"))),
                readHash(string.concat(path, "base")),
                readHash(string.concat(path, "artifact"))
            )
        );
    }

    function test_RoundAttestation() external view {
        Signing.Batch memory content = attested();
        check(
            "attestation",
            MessageHashes.roundAttestation(
                content.jobId,
                content.round,
                content.batch,
                content.last,
                content.base,
                content.receipts,
                content.evidence
            )
        );
    }

    function test_JobClosure() external view {
        string memory path = ".messages.closure.message.";
        uint64 rounds = uint64(readUint(string.concat(path, "rounds")));
        uint128 spent = uint128(readUint(string.concat(path, "spent")));
        check("closure", MessageHashes.jobClosure(readUint(string.concat(path, "jobId")), rounds, spent));
    }

    function hashBid(IComputeMarketTypes.Bid calldata offer) external pure returns (bytes32) {
        return MessageHashes.bid(offer);
    }

    function test_Bid() external view {
        check("bid", this.hashBid(offered()));
    }

    function attested() internal view returns (Signing.Batch memory) {
        string memory path = ".messages.attestation.message.";
        return Signing.Batch({
            jobId: readUint(string.concat(path, "jobId")),
            round: uint64(readUint(string.concat(path, "round"))),
            batch: uint32(readUint(string.concat(path, "batch"))),
            last: vm.parseJsonBool(json, string.concat(path, "last")),
            base: readHash(string.concat(path, "base")),
            receipts: readHash(string.concat(path, "receipts")),
            evidence: readHash(string.concat(path, "evidence"))
        });
    }

    function offered() internal view returns (IComputeMarketTypes.Bid memory) {
        string memory path = ".messages.bid.message.";
        return IComputeMarketTypes.Bid({
            jobId: readUint(string.concat(path, "jobId")),
            nodeId: uint32(readUint(string.concat(path, "nodeId"))),
            rate: uint128(readUint(string.concat(path, "rate"))),
            capacity: uint64(readUint(string.concat(path, "capacity"))),
            expiresAt: uint64(readUint(string.concat(path, "expiresAt"))),
            nonce: uint64(readUint(string.concat(path, "nonce")))
        });
    }

    /*//////////////////////////////////////////////////////////////
                            PACKING, AMOUNTS
    //////////////////////////////////////////////////////////////*/

    function read(bytes calldata receipts, uint256 index)
        external
        pure
        returns (PackedReceipts.PackedReceipt memory)
    {
        return PackedReceipts.read(receipts, index);
    }

    function test_PackedReceipts() external view {
        bytes memory packed = vm.parseJsonBytes(json, ".batch.packed");
        vm.assertEq(keccak256(packed), readHash(".batch.hash"));
        Signing.Batch memory content = attested();
        address[] memory signers = vm.parseJsonAddressArray(json, ".batch.signers");
        vm.assertEq(packed.length, signers.length * PackedReceipts.SIZE);
        for (uint256 i = 0; i < signers.length; ++i) {
            string memory path = string.concat(".batch.receipts[", vm.toString(i), "].");
            PackedReceipts.PackedReceipt memory item = this.read(packed, i);
            vm.assertEq(item.nodeId, readUint(string.concat(path, "nodeId")));
            vm.assertEq(item.units, readUint(string.concat(path, "units")));
            vm.assertEq(item.quality, readUint(string.concat(path, "quality")));
            vm.assertEq(item.artifact, readHash(string.concat(path, "artifact")));
            bytes memory signature = vm.parseJsonBytes(json, string.concat(path, "signature"));
            vm.assertEq(abi.encodePacked(item.r, item.s, item.v), signature, "signature");
            bytes32 structHash = MessageHashes.receipt(
                content.jobId, content.round, item.nodeId, item.units, content.base, item.artifact
            );
            bytes32 digest = Signing.digest(verifier(), structHash);
            vm.assertEq(ECDSA.recover(digest, item.v, item.r, item.s), signers[i]);
        }
    }

    function test_Rewards() external {
        uint32 nodeId = register(OPERATOR);
        uint256 count;
        for (
            string memory path = ".rewards[0]";
            vm.keyExistsJson(json, path);
            path = string.concat(".rewards[", vm.toString(++count), "]")
        ) {
            IComputeMarketTypes.Bid memory bid = bidOf(0, nodeId);
            bid.rate = uint128(readUint(string.concat(path, ".rate")));
            bid.capacity = type(uint64).max;
            vm.prank(requester);
            uint256 jobId = market.createJob(SPEC, 1, bid.rate);
            take(jobId, OPERATOR, bid);
            uint64 units = uint64(readUint(string.concat(path, ".units")));
            uint16 quality = uint16(readUint(string.concat(path, ".quality")));
            uint256 amount = readUint(string.concat(path, ".amount"));
            vm.assertEq(market.calculateRewards(jobId, nodeId, units, quality), amount, path);
        }
        vm.assertGe(count, 5, "rewards were not read");
    }

    /*//////////////////////////////////////////////////////////////
                           THE REAL CONTRACT
    //////////////////////////////////////////////////////////////*/

    /// @dev Puts a market where the vectors were signed for, and brings their signatures as they are: the
    /// delegation, the bid, the batch with its attestation, and the closure.
    function test_TheContractTakesTheSignaturesAsTheyAre() external {
        deployToVerifier();
        uint256 wallet = readUint(".keys.wallet");
        bringNodes(wallet);

        // Job 7 with the vectors' bid for node 12, and what the batch assumes of node 13.
        for (uint256 i = 1; i <= 7; ++i) {
            vm.prank(requester);
            market.createJob(SPEC, ESCROW, 7);
        }
        IComputeMarketTypes.Bid[] memory bids = new IComputeMarketTypes.Bid[](1);
        bytes[] memory signatures = new bytes[](1);
        (bids[0], signatures[0]) = (offered(), vm.parseJsonBytes(json, ".messages.bid.signature"));
        market.takeBids(7, bids, signatures);
        IComputeMarketTypes.Bid memory other = bidOf(7, 13);
        (other.rate, other.capacity) = (7, 10_000_000);
        take(7, wallet, other);
        settleUpTo(3, "");

        Signing.Batch memory content = attested();
        signatures[0] = vm.parseJsonBytes(json, ".messages.attestation.signature");
        bytes memory packed = vm.parseJsonBytes(json, ".batch.packed");
        market.settleRound(
            content.jobId,
            content.round,
            content.batch,
            content.last,
            content.base,
            packed,
            content.evidence,
            signatures
        );
        vm.assertEq(creditOf(12), readUint(".rewards[0].amount"));
        vm.assertEq(creditOf(13), readUint(".rewards[1].amount"));

        close(signatures);
    }

    function deployToVerifier() internal {
        address[] memory list = new address[](1);
        list[0] = vm.addr(readUint(".keys.attestor"));
        bytes memory arguments = abi.encode(token, MIN_STAKE, admin, list, uint8(1), EXIT_NOTICE, UNBONDING);
        bytes memory creation = abi.encodePacked(vm.getCode("ComputeMarket.sol:ComputeMarket"), arguments);
        vm.etch(verifier(), creation);
        (bool success, bytes memory runtime) = verifier().call("");
        vm.assertTrue(success, "constructor");
        vm.etch(verifier(), runtime);
        market = Market(verifier());
        fund(requester);
    }

    /// @dev Nodes 1 to 11 are anyone's, 12 and 13 of the vectors' wallet. Node 12 gets its key by the vectors'
    /// delegation.
    function bringNodes(uint256 wallet) internal {
        for (uint32 nodeId = 1; nodeId <= 11; ++nodeId) {
            register(OPERATOR);
        }
        register(wallet);
        address operator = vm.addr(wallet);
        uint64 expiresAt = uint64(readUint(".messages.delegation.message.expiresAt"));
        uint256 hot = readUint(".keys.hot");
        bytes memory byWallet = vm.parseJsonBytes(json, ".messages.delegation.signature");
        bytes memory possession = signDelegation(hot, operator, vm.addr(hot), expiresAt);
        vm.prank(operator);
        market.delegateHotKey(12, vm.addr(hot), expiresAt, byWallet, possession);

        uint256 hot2 = readUint(".keys.hot2");
        possession = signDelegation(hot2, operator, vm.addr(hot2), expiresAt);
        vm.prank(operator);
        market.registerNode(vm.addr(hot2), expiresAt, MIN_STAKE, possession);
    }

    /// @dev Closes rounds of job 7 until `round` is next, the first of them with `receipts`.
    function settleUpTo(uint64 round, bytes memory receipts) internal {
        bytes[] memory signatures = new bytes[](1);
        for (uint64 next = market.getJob(7).round; next < round; ++next) {
            Signing.Batch memory content =
                Signing.Batch(7, next, 0, true, BASE, keccak256(receipts), EVIDENCE);
            signatures[0] = Signing.attestation(market, readUint(".keys.attestor"), content);
            market.settleRound(7, next, 0, true, BASE, receipts, EVIDENCE, signatures);
            receipts = "";
        }
    }

    /// @dev Spends on node 1, at a rate of 1, what the vectors' closure says was spent.
    function close(bytes[] memory signatures) internal {
        uint128 spent = uint128(readUint(".messages.closure.message.spent"));
        uint64 rounds = uint64(readUint(".messages.closure.message.rounds"));
        IComputeMarketTypes.Job memory job = market.getJob(7);
        uint64 rest = uint64(spent - job.spent);
        IComputeMarketTypes.Bid memory filler = bidOf(7, 1);
        (filler.rate, filler.capacity) = (1, rest);
        take(7, OPERATOR, filler);
        settleUpTo(rounds, receipt(7, job.round, 1, rest, 10_000));
        signatures[0] = vm.parseJsonBytes(json, ".messages.closure.signature");
        market.closeJob(7, rounds, spent, signatures);
        vm.assertTrue(market.getJob(7).closed);
    }
}
