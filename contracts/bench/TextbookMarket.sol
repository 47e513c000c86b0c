// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/// @title Textbook market
/// @notice Settlement as it is usually written: accounts in a mapping by address, receipts as ABI structs, a
/// mapping of used digests against replay. What `scripts/bench settlement-gas` compares ComputeMarket with; it is
/// part of no deployment.
/// @dev As cheap as this design goes without leaving it: calldata, custom errors, packed structs, the same
/// compiler settings. It does less than ComputeMarket: attestors sign a quality that they agreed on before, there
/// are no epochs, disputes or pauses, and anyone may seat a node.
contract TextbookMarket is EIP712 {
    using SafeERC20 for IERC20;

    struct Receipt {
        address node;
        uint64 units;
        uint16 quality;
        bytes32 artifact;
        bytes signature;
    }

    struct Account {
        uint128 credit;
        uint64 units;
        uint64 rounds;
        uint64 qualitySum;
        uint64 lastSettledAt;
    }

    struct Seat {
        uint128 rate;
        uint64 capacity;
    }

    struct Job {
        address requester;
        uint96 round;
        uint128 escrow;
        uint128 spent;
    }

    event ContributionSettled(
        uint256 indexed jobId,
        uint64 indexed round,
        address indexed node,
        uint64 units,
        uint16 quality,
        uint128 amount,
        bytes32 artifact
    );
    event RoundSettled(
        uint256 indexed jobId, uint64 indexed round, uint256 receipts, uint128 total, bytes32 evidence
    );

    error ReceiptUsed(bytes32 digest);
    error InvalidReceiptSignature(address node, address signer);
    error UnitsAboveCapacity(address node, uint64 units, uint64 capacity);
    error InsufficientEscrow(uint256 jobId, uint128 total, uint128 available);
    error NoQuorum(uint256 signatures, uint256 quorum);
    error NotAttestor(address signer);

    bytes32 private constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(uint256 jobId,uint64 round,address node,uint64 units,bytes32 base,bytes32 artifact)"
    );
    bytes32 private constant ATTESTATION_TYPEHASH =
        keccak256("Attestation(uint256 jobId,uint64 round,bytes32 base,bytes32 receipts,bytes32 evidence)");
    uint256 private constant QUALITY_ONE = 10_000;

    IERC20 public immutable token;
    uint256 public immutable quorum;

    mapping(uint256 jobId => Job) public jobs;
    mapping(uint256 jobId => mapping(address node => Seat)) public seats;
    mapping(address node => Account) public accounts;
    mapping(bytes32 digest => bool) public used;
    mapping(address => bool) public isAttestor;
    uint256 public jobCount;

    constructor(IERC20 token_, address[] memory attestors, uint256 quorum_) EIP712("HyperGPU", "1") {
        token = token_;
        quorum = quorum_;
        for (uint256 i = 0; i < attestors.length; ++i) {
            isAttestor[attestors[i]] = true;
        }
    }

    function createJob(uint128 escrow) external returns (uint256 jobId) {
        jobId = ++jobCount;
        jobs[jobId] = Job({requester: msg.sender, round: 0, escrow: escrow, spent: 0});
        token.safeTransferFrom(msg.sender, address(this), escrow);
    }

    function seat(uint256 jobId, address[] calldata nodes, uint128 rate, uint64 capacity) external {
        for (uint256 i = 0; i < nodes.length; ++i) {
            seats[jobId][nodes[i]] = Seat(rate, capacity);
        }
    }

    /// @notice Pays signed receipts of a round. `attestations` are by increasing signer.
    function settleRound(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        Receipt[] calldata receipts,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external {
        _requireQuorum(
            _hashTypedDataV4(
                keccak256(
                    abi.encode(
                        ATTESTATION_TYPEHASH, jobId, round, base, keccak256(abi.encode(receipts)), evidence
                    )
                )
            ),
            attestations
        );
        uint128 total;
        for (uint256 i = 0; i < receipts.length; ++i) {
            total += _credit(jobId, round, base, receipts[i]);
        }
        Job storage job = jobs[jobId];
        uint128 available = job.escrow - job.spent;
        if (total > available) revert InsufficientEscrow(jobId, total, available);
        job.spent += total;
        emit RoundSettled(jobId, round, receipts.length, total, evidence);
    }

    function withdraw(uint128 amount) external {
        accounts[msg.sender].credit -= amount;
        token.safeTransfer(msg.sender, amount);
    }

    function _credit(uint256 jobId, uint64 round, bytes32 base, Receipt calldata receipt)
        private
        returns (uint128 amount)
    {
        bytes32 digest = _hashTypedDataV4(
            keccak256(
                abi.encode(
                    RECEIPT_TYPEHASH, jobId, round, receipt.node, receipt.units, base, receipt.artifact
                )
            )
        );
        if (used[digest]) revert ReceiptUsed(digest);
        used[digest] = true;
        address signer = ECDSA.recoverCalldata(digest, receipt.signature);
        if (signer != receipt.node) revert InvalidReceiptSignature(receipt.node, signer);

        Seat memory place = seats[jobId][receipt.node];
        if (receipt.units > place.capacity) {
            revert UnitsAboveCapacity(receipt.node, receipt.units, place.capacity);
        }
        amount = uint128(uint256(receipt.units) * place.rate * receipt.quality / QUALITY_ONE);

        Account storage account = accounts[receipt.node];
        account.credit += amount;
        account.units += receipt.units;
        account.rounds += 1;
        account.qualitySum += receipt.quality;
        account.lastSettledAt = uint64(block.timestamp);
        emit ContributionSettled(
            jobId, round, receipt.node, receipt.units, receipt.quality, amount, receipt.artifact
        );
    }

    function _requireQuorum(bytes32 digest, bytes[] calldata attestations) private view {
        if (attestations.length < quorum) revert NoQuorum(attestations.length, quorum);
        address last;
        for (uint256 i = 0; i < attestations.length; ++i) {
            address signer = ECDSA.recoverCalldata(digest, attestations[i]);
            if (signer <= last || !isAttestor[signer]) revert NotAttestor(signer);
            last = signer;
        }
    }
}
