// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {MessageHashes} from "../src/libraries/MessageHashes.sol";
import {PackedReceipts} from "../src/libraries/PackedReceipts.sol";
import {PackedScores} from "../src/libraries/PackedScores.sol";
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

    function hashAttestation(BatchHeader calldata header, bytes32 receipts, bytes32 commitments)
        external
        pure
        returns (bytes32)
    {
        return MessageHashes.roundAttestation(header, receipts, commitments);
    }

    function test_RoundAttestation() external view {
        string memory path = ".messages.attestation.message.";
        bytes32 receipts = readHash(string.concat(path, "receipts"));
        bytes32 commitments = readHash(string.concat(path, "commitments"));
        check("attestation", this.hashAttestation(attested(), receipts, commitments));
    }

    function test_JobClosure() external view {
        string memory path = ".messages.closure.message.";
        uint64 rounds = uint64(readUint(string.concat(path, "rounds")));
        uint128 spent = uint128(readUint(string.concat(path, "spent")));
        uint32 epoch = uint32(readUint(string.concat(path, "epoch")));
        check(
            "closure", MessageHashes.jobClosure(readUint(string.concat(path, "jobId")), rounds, spent, epoch)
        );
    }

    function test_Acceptance() external view {
        string memory path = ".messages.acceptance.message.";
        uint64 round = uint64(readUint(string.concat(path, "round")));
        bytes32 digest = readHash(string.concat(path, "digest"));
        check("acceptance", MessageHashes.acceptance(readUint(string.concat(path, "jobId")), round, digest));
    }

    function hashWithdrawal(Withdrawal calldata message) external pure returns (bytes32) {
        return MessageHashes.withdrawal(message);
    }

    function test_Withdrawal() external view {
        check("withdrawal", this.hashWithdrawal(withdrawn()));
    }

    function withdrawn() internal view returns (Withdrawal memory) {
        string memory path = ".messages.withdrawal.message.";
        return Withdrawal({
            nodeId: uint32(readUint(string.concat(path, "nodeId"))),
            to: vm.parseJsonAddress(json, string.concat(path, "to")),
            amount: uint128(readUint(string.concat(path, "amount"))),
            fee: uint128(readUint(string.concat(path, "fee"))),
            nonce: uint64(readUint(string.concat(path, "nonce"))),
            deadline: uint64(readUint(string.concat(path, "deadline")))
        });
    }

    function hashBid(Bid calldata offer) external pure returns (bytes32) {
        return MessageHashes.bid(offer);
    }

    function test_Bid() external view {
        check("bid", this.hashBid(offered()));
    }

    function attested() internal view returns (BatchHeader memory) {
        string memory path = ".messages.attestation.message.";
        return BatchHeader({
            jobId: readUint(string.concat(path, "jobId")),
            round: uint64(readUint(string.concat(path, "round"))),
            batch: uint32(readUint(string.concat(path, "batch"))),
            last: vm.parseJsonBool(json, string.concat(path, "last")),
            epoch: uint32(readUint(string.concat(path, "epoch"))),
            base: readHash(string.concat(path, "base")),
            evidence: readHash(string.concat(path, "evidence"))
        });
    }

    function offered() internal view returns (Bid memory) {
        string memory path = ".messages.bid.message.";
        return Bid({
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
        BatchHeader memory content = attested();
        address[] memory signers = vm.parseJsonAddressArray(json, ".batch.signers");
        vm.assertEq(packed.length, signers.length * PackedReceipts.SIZE);
        for (uint256 i = 0; i < signers.length; ++i) {
            string memory path = string.concat(".batch.receipts[", vm.toString(i), "].");
            PackedReceipts.PackedReceipt memory item = this.read(packed, i);
            vm.assertEq(item.nodeId, readUint(string.concat(path, "nodeId")));
            vm.assertEq(item.units, readUint(string.concat(path, "units")));
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
            Bid memory bid = bidOf(0, nodeId);
            bid.rate = uint128(readUint(string.concat(path, ".rate")));
            bid.capacity = type(uint48).max;
            uint256 jobId = postJob(1, uint96(bid.rate));
            take(jobId, OPERATOR, bid);
            uint64 units = uint64(readUint(string.concat(path, ".units")));
            uint16 quality = uint16(readUint(string.concat(path, ".quality")));
            uint256 amount = readUint(string.concat(path, ".amount"));
            if (units > type(uint48).max) {
                vm.expectRevert(
                    abi.encodeWithSelector(UnitsAboveCapacity.selector, nodeId, units, type(uint48).max)
                );
                market.calculateRewards(jobId, nodeId, units, quality); // More than a seat can hold.
                continue;
            }
            vm.assertEq(market.calculateRewards(jobId, nodeId, units, quality), amount, path);
        }
        vm.assertGe(count, 5, "rewards were not read");
    }

    function test_Medians() external view {
        uint256 count;
        for (
            string memory path = ".medians[0]";
            vm.keyExistsJson(json, path);
            path = string.concat(".medians[", vm.toString(++count), "]")
        ) {
            uint256[] memory scores = vm.parseJsonUintArray(json, string.concat(path, ".scores"));
            bytes[] memory openings_ = new bytes[](scores.length);
            for (uint256 i = 0; i < scores.length; ++i) {
                openings_[i] = abi.encodePacked(address(0), bytes32(0), uint16(scores[i]));
            }
            (uint256 median, uint256 highest) = PackedScores.median(openings_, scores.length, 0);
            vm.assertEq(median, readUint(string.concat(path, ".median")), path);
            vm.assertGe(highest, median, path);
        }
        vm.assertGe(count, 5, "medians were not read");
    }

    /*//////////////////////////////////////////////////////////////
                           THE REAL CONTRACT
    //////////////////////////////////////////////////////////////*/

    /// @dev Puts a market where the vectors were signed for, and brings their signatures as they are: delegation,
    /// bid, the batch with its three attestations, withdrawal and closure.
    function test_TheContractTakesTheSignaturesAsTheyAre() external {
        deployToVerifier();
        uint256 wallet = readUint(".keys.wallet");
        bringNodes(wallet);

        // Job 7, of the wallet, with its bid for node 12, and what the batch assumes of node 13.
        for (uint256 i = 1; i <= 7; ++i) {
            vm.prank(vm.addr(wallet));
            market.createJob(SPEC, ESCROW, 7);
        }
        Bid[] memory bids = new Bid[](1);
        bytes[] memory signatures = new bytes[](1);
        (bids[0], signatures[0]) = (offered(), vm.parseJsonBytes(json, ".messages.bid.signature"));
        vm.prank(coordinator);
        market.takeBids(7, bids, signatures, MAX_UNITS, "");
        Bid memory other = bidOf(7, 13);
        (other.rate, other.capacity) = (7, 10_000_000);
        take(7, wallet, other);
        settleUpTo(3, "");

        market.settleRound(attested(), vm.parseJsonBytes(json, ".batch.packed"), openings());
        vm.assertEq(creditOf(12), market.calculateRewards(7, 12, 1280, qualityOf(0)));
        vm.assertEq(creditOf(13), market.calculateRewards(7, 13, unitsOf(1), qualityOf(1)));
        earnOnNode12(withdrawn().amount);
        vm.prank(stranger);
        market.withdrawWithSignature(withdrawn(), vm.parseJsonBytes(json, ".messages.withdrawal.signature"));
        finish();
    }

    function qualityOf(uint256 i) internal view returns (uint16) {
        return uint16(readUint(string.concat(".batch.qualities[", vm.toString(i), "]")));
    }

    function unitsOf(uint256 i) internal view returns (uint64) {
        return uint64(readUint(string.concat(".batch.receipts[", vm.toString(i), "].units")));
    }

    function openings() internal view returns (Attestation[] memory list) {
        list = new Attestation[](3);
        for (uint8 i = 0; i < 3; ++i) {
            string memory path = string.concat(".batch.attestations[", vm.toString(i), "].");
            list[i] = Attestation({
                member: uint8(readUint(string.concat(path, "member"))),
                salt: readHash(string.concat(path, "salt")),
                scores: vm.parseJsonBytes(json, string.concat(path, "packedScores")),
                signature: vm.parseJsonBytes(json, string.concat(path, "signature"))
            });
        }
    }

    /// @dev With the vectors' three attestors in epoch 5.
    function deployToVerifier() internal {
        delete attestorKeys;
        attestorKeys.push(readUint(".keys.attestor"));
        attestorKeys.push(readUint(".keys.attestor2"));
        attestorKeys.push(readUint(".keys.attestor3"));
        bytes memory arguments = abi.encode(token, standardTerms(), timelock, guardian, address(this));
        bytes memory creation = abi.encodePacked(vm.getCode("ComputeMarket.sol:ComputeMarket"), arguments);
        vm.etch(verifier(), creation);
        (bool success, bytes memory runtime) = verifier().call("");
        vm.assertTrue(success, "constructor");
        vm.etch(verifier(), runtime);
        market = Market(verifier());
        market.connect(registry, court, coordinator);
        for (uint256 epoch = 1; epoch <= 5; ++epoch) {
            vm.prank(registry);
            market.beginEpoch(attestors(), 2);
        }
        fund(vm.addr(readUint(".keys.wallet")));
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
        for (uint64 next = market.getJob(7).round; next < round; ++next) {
            settle(7, true, receipts);
            receipts = "";
        }
    }

    /// @dev On another job: the closure names what job 7 has spent.
    function earnOnNode12(uint128 amount) internal {
        Bid memory bid = bidOf(6, 12);
        (bid.rate, bid.capacity) = (7, uint64(amount));
        take(6, readUint(".keys.wallet"), bid);
        uint64 units = uint64(amount / 7 + 1);
        Signing.Work memory work = Signing.Work(6, 0, 12, units, BASE, artifactOf(12));
        settle(6, true, Signing.packedReceipt(market, readUint(".keys.hot"), work));
    }

    /// @dev Spends on node 1, at a rate of 1, what the vectors' closure says was spent.
    function finish() internal {
        uint128 spent = uint128(readUint(".messages.closure.message.spent"));
        uint64 rounds = uint64(readUint(".messages.closure.message.rounds"));
        Job memory job = market.getJob(7);
        uint64 rest = uint64(spent - job.spent);
        Bid memory filler = bidOf(7, 1);
        (filler.rate, filler.capacity) = (1, rest);
        take(7, OPERATOR, filler);
        settleUpTo(rounds, receipt(7, job.round, 1, rest));
        Attestation[] memory attestations = attestClosure(7, rounds, spent);
        attestations[0].signature = vm.parseJsonBytes(json, ".messages.closure.signature");
        market.closeJob(7, rounds, spent, 5, attestations);
        vm.assertTrue(market.getJob(7).closed);
    }
}
