// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";

import {IAttestorRegistry} from "../../src/interfaces/IAttestorRegistry.sol";
import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {MarketTest} from "./MarketTest.sol";
import {Signing} from "./Signing.sol";
import {vm} from "./Vm.sol";

/// @notice AttestorRegistry with what it inherits from libraries.
interface Registry is IAttestorRegistry, IERC5267 {
    function owner() external view returns (address);
}

/// @notice DisputeCourt with what it inherits from libraries.
interface Court is IDisputeCourt, IERC5267 {}

/// @notice A market with its real registry and court. Attestors 1, 2, 3 are the set of the epoch; 1 and 2 open each
/// batch; 4 to 8 joined later. Attestor `i` is the key SIGNER + i, its wallet `walletOf(i)`.
abstract contract CourtTest is MarketTest {
    uint256 internal constant SIGNER = 0xA0;
    uint32 internal constant LATER = 5;
    uint128 internal constant MIN_BOND = 1_000e6;
    uint64 internal constant EPOCH = 7 days;
    uint64 internal constant LEAVE = 2 days;
    uint128 internal constant BOND = 10e6;
    uint64 internal constant ANSWER = 4 hours;
    uint64 internal constant COMMIT = 2 hours;
    uint64 internal constant REVEAL = 1 hours;
    uint64 internal constant APPEAL = 3 hours;
    uint64 internal constant RULING = 6 hours;
    uint16 internal constant TOLERANCE = 500;
    uint64 internal constant UNITS = 1_000_000;
    /// @dev Pay of UNITS at full quality.
    uint128 internal constant FULL = 5e6;

    address internal immutable arbiter = address(0xAB);
    address internal immutable challenger = address(0xCC);
    address internal immutable operator = vm.addr(OPERATOR);

    Registry internal theRegistry;
    Court internal theCourt;
    uint256 internal jobId;

    function setUp() public virtual override {
        super.setUp();
        vm.roll(1000);
        uint32 pool = LATER + 3;
        address[] memory admitted = new address[](pool);
        for (uint32 i = 0; i < pool; ++i) {
            admitted[i] = signerOf(i + 1);
        }
        theRegistry = deployRegistry(registryTerms(), admitted);
        theCourt = deployCourt(courtTerms());
        vm.prank(timelock);
        market.setPeriphery(address(theRegistry), address(theCourt));
        for (uint32 i = 1; i <= 3; ++i) {
            join(i);
        }
        theRegistry.beginEpoch();
        for (uint32 i = 4; i <= pool; ++i) {
            join(i);
        }
        jobId = jobWithNodes(3);
        fundFor(challenger, address(theCourt));
        fundFor(operator, address(theCourt));
        fundFor(requester, address(theCourt));
    }

    /*//////////////////////////////////////////////////////////////
                               CONTRACTS
    //////////////////////////////////////////////////////////////*/

    function registryTerms() internal pure returns (IAttestorRegistry.RegistryTerms memory) {
        return IAttestorRegistry.RegistryTerms({
            minBond: MIN_BOND, epochLength: EPOCH, leaveTime: LEAVE, setSize: 3
        });
    }

    function courtTerms() internal pure returns (IDisputeCourt.CourtTerms memory) {
        return IDisputeCourt.CourtTerms({
            bond: BOND,
            answerTime: ANSWER,
            commitTime: COMMIT,
            revealTime: REVEAL,
            appealTime: APPEAL,
            rulingTime: RULING,
            committeeSize: 3,
            tolerance: TOLERANCE
        });
    }

    function deployRegistry(IAttestorRegistry.RegistryTerms memory terms, address[] memory admitted)
        internal
        returns (Registry)
    {
        bytes memory arguments = abi.encode(market, timelock, terms, admitted);
        return Registry(vm.deployCode("AttestorRegistry.sol:AttestorRegistry", arguments));
    }

    function deployCourt(IDisputeCourt.CourtTerms memory terms) internal returns (Court) {
        bytes memory arguments = abi.encode(market, theRegistry, arbiter, terms);
        return Court(vm.deployCode("DisputeCourt.sol:DisputeCourt", arguments));
    }

    function fundFor(address owner, address spender) internal {
        token.mint(owner, 1e18);
        vm.prank(owner);
        token.approve(spender, type(uint256).max);
    }

    /*//////////////////////////////////////////////////////////////
                               ATTESTORS
    //////////////////////////////////////////////////////////////*/

    function signerOf(uint32 attestorId) internal pure returns (address) {
        return vm.addr(SIGNER + attestorId);
    }

    function walletOf(uint32 attestorId) internal pure returns (address) {
        return address(uint160(0xBEEF00 + attestorId));
    }

    /// @dev The next attestor, which must be `attestorId`.
    function join(uint32 attestorId) internal {
        address wallet = walletOf(attestorId);
        fundFor(wallet, address(theRegistry));
        bytes memory possession = possessionOf(SIGNER + attestorId, wallet);
        vm.prank(wallet);
        uint32 joined = theRegistry.join(signerOf(attestorId), MIN_BOND, possession);
        vm.assertEq(joined, attestorId);
    }

    function depart(uint32 attestorId) internal {
        vm.prank(walletOf(attestorId));
        theRegistry.requestLeave(attestorId);
    }

    function possessionOf(uint256 key, address wallet) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256("AttestorKey(address owner,address signer)");
        bytes32 structHash = keccak256(abi.encode(typeHash, wallet, vm.addr(key)));
        return signIn("HyperGPU Attestors", address(theRegistry), key, structHash);
    }

    function bondOf(uint32 attestorId) internal view returns (uint128) {
        return theRegistry.getAttestor(attestorId).bond;
    }

    /*//////////////////////////////////////////////////////////////
                            RECEIPTS, PROOFS
    //////////////////////////////////////////////////////////////*/

    /// @dev Settles a round of nodes 1 and 2 at `quality`; shows the receipt at `position`.
    function settleRoundAt(uint16 quality, uint256 position)
        internal
        returns (IDisputeCourt.ReceiptProof memory)
    {
        uint64 round = market.getJob(jobId).round;
        bytes memory receipts =
            abi.encodePacked(receipt(jobId, round, 1, UNITS), receipt(jobId, round, 2, UNITS));
        settle(jobId, true, receipts, quality);
        return proofOf(receipts, quality, position);
    }

    function proofOf(bytes memory receipts, uint16 quality, uint256 position)
        internal
        view
        returns (IDisputeCourt.ReceiptProof memory proof)
    {
        proof.receipts = receipts;
        proof.qualities = sameScores(receipts, quality);
        proof.batches = new SettledBatch[](1);
        proof.batches[0] = batchOf(receipts, proof.qualities);
        proof.position = position;
    }

    function batchOf(bytes memory receipts, bytes memory qualities)
        internal
        view
        returns (SettledBatch memory)
    {
        (uint32 epoch,,) = market.getAttestors();
        return SettledBatch({
            base: BASE,
            evidence: EVIDENCE,
            receipts: keccak256(receipts),
            qualities: keccak256(qualities),
            epoch: epoch,
            attestors: 3
        });
    }

    /// @dev A receipt as `receipt` packs it, with its parts apart.
    function signedReceipt(uint64 round, uint32 nodeId, uint64 units, bytes32 artifact)
        internal
        view
        returns (IDisputeCourt.SignedReceipt memory signed)
    {
        Signing.Work memory work = Signing.Work(jobId, round, nodeId, units, BASE, artifact);
        bytes memory packed = Signing.packedReceipt(market, HOT + nodeId, work);
        bytes memory signature = new bytes(65);
        for (uint256 i = 0; i < 65; ++i) {
            signature[i] = packed[44 + i];
        }
        return IDisputeCourt.SignedReceipt(jobId, round, nodeId, units, BASE, artifact, signature);
    }

    /// @dev Node 3's receipt is recorded and the round settled without it.
    function leaveOut()
        internal
        returns (
            IDisputeCourt.SignedReceipt memory claim,
            SettledBatch[] memory batches,
            bytes[] memory receipts
        )
    {
        uint64 round = market.getJob(jobId).round;
        claim = signedReceipt(round, 3, UNITS, artifactOf(3));
        market.submitContribution(jobId, round, BASE, receipt(jobId, round, 3, UNITS));
        receipts = new bytes[](1);
        receipts[0] = receipt(jobId, round, 1, UNITS);
        settle(jobId, true, receipts[0]);
        batches = new SettledBatch[](1);
        batches[0] = batchOf(receipts[0], sameScores(receipts[0], 10_000));
    }

    /// @dev Gives a node another hot key.
    function rotate(uint32 nodeId, uint256 key) internal {
        address hotKey = vm.addr(key);
        bytes memory possession = signDelegation(key, operator, hotKey, FAR);
        bytes memory consent = signDelegation(OPERATOR, operator, hotKey, FAR);
        vm.prank(operator);
        market.delegateHotKey(nodeId, hotKey, FAR, consent, possession);
    }

    /*//////////////////////////////////////////////////////////////
                                 CASES
    //////////////////////////////////////////////////////////////*/

    /// @dev A quality case about node 1's receipt in a new round that paid it at `quality`.
    function openQuality(uint16 quality) internal returns (uint256) {
        return challengeQuality(challenger, settleRoundAt(quality, 0));
    }

    function challengeQuality(address by, IDisputeCourt.ReceiptProof memory proof)
        internal
        returns (uint256)
    {
        uint64 round = market.getJob(jobId).round - 1;
        vm.prank(by);
        return theCourt.challengeQuality(jobId, round, proof);
    }

    function openAvailability(uint16 quality) internal returns (uint256) {
        IDisputeCourt.ReceiptProof memory proof = settleRoundAt(quality, 0);
        uint64 round = market.getJob(jobId).round - 1;
        vm.prank(challenger);
        return theCourt.challengeAvailability(jobId, round, proof);
    }

    function openOmission() internal returns (uint256) {
        (IDisputeCourt.SignedReceipt memory claim, SettledBatch[] memory batches, bytes[] memory receipts) =
            leaveOut();
        vm.prank(operator);
        return theCourt.claimOmitted(claim, batches, receipts);
    }

    function show(uint256 caseId) internal {
        bytes memory signature = pointerSignature(HOT + 1, caseId, "https://artifacts.test/1");
        theCourt.showArtifact(caseId, "https://artifacts.test/1", signature);
    }

    function pointerSignature(uint256 key, uint256 caseId, string memory pointer)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typeHash = keccak256("ArtifactPointer(uint256 caseId,bytes32 artifact,string pointer)");
        bytes32 artifact = theCourt.getCase(caseId).artifact;
        bytes32 structHash = keccak256(abi.encode(typeHash, caseId, artifact, keccak256(bytes(pointer))));
        return signIn("HyperGPU Court", address(theCourt), key, structHash);
    }

    function draw(uint256 caseId) internal returns (uint32[] memory) {
        vm.roll(vm.getBlockNumber() + 3);
        theCourt.drawCommittee(caseId);
        return theCourt.getCommittee(caseId);
    }

    function commit(uint256 caseId, uint32 attestorId, uint16 quality) internal {
        bytes32 commitment = commitmentOf(caseId, attestorId, quality);
        vm.prank(signerOf(attestorId));
        theCourt.commitVote(caseId, commitment);
    }

    function reveal(uint256 caseId, uint32 attestorId, uint16 quality) internal {
        vm.prank(signerOf(attestorId));
        theCourt.revealVote(caseId, quality, saltOf(attestorId));
    }

    function commitmentOf(uint256 caseId, uint32 attestorId, uint16 quality) internal pure returns (bytes32) {
        return keccak256(abi.encode(caseId, signerOf(attestorId), quality, saltOf(attestorId)));
    }

    function saltOf(uint32 attestorId) internal pure returns (bytes32) {
        return keccak256(abi.encode("salt", attestorId));
    }

    /// @dev Draws a committee of three, which finds the median of these, and decides.
    function find(uint256 caseId, uint16 a, uint16 b, uint16 c) internal returns (uint32[] memory members) {
        members = draw(caseId);
        uint16[3] memory qualities = [a, b, c];
        for (uint256 i = 0; i < 3; ++i) {
            commit(caseId, members[i], qualities[i]);
        }
        for (uint256 i = 0; i < 3; ++i) {
            reveal(caseId, members[i], qualities[i]);
        }
        theCourt.decide(caseId);
    }

    /// @dev Executes a case that waits for nothing but its deadline.
    function finish(uint256 caseId) internal {
        uint64 deadline = theCourt.getCase(caseId).deadline;
        if (time() < deadline) vm.warp(deadline);
        theCourt.execute(caseId);
        checkBooks();
    }

    function expectStage(uint256 caseId, IDisputeCourt.Stage stage) internal view {
        vm.assertEq(uint256(theCourt.getCase(caseId).stage), uint256(stage), "stage");
    }

    /*//////////////////////////////////////////////////////////////
                                HELPERS
    //////////////////////////////////////////////////////////////*/

    function signIn(string memory name, address verifier, uint256 key, bytes32 structHash)
        internal
        view
        returns (bytes memory)
    {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256(bytes(name)),
                keccak256("1"),
                block.chainid,
                verifier
            )
        );
        return Signing.sign(key, keccak256(abi.encodePacked(hex"1901", domain, structHash)));
    }

    /// @dev All three contracts hold what they owe, to the last unit.
    function checkBooks() internal view {
        checkHoldings();
        uint256 held = uint256(theCourt.bonds()) + theCourt.totalOwed();
        vm.assertEq(token.balanceOf(address(theCourt)), held, "court's balance differs from its books");
        uint256 sum = uint256(theRegistry.totalOwed()) + theRegistry.insurance();
        for (uint32 i = 1; i <= theRegistry.attestorCount(); ++i) {
            sum += bondOf(i);
        }
        vm.assertEq(token.balanceOf(address(theRegistry)), sum, "registry's balance differs from its books");
    }
}
