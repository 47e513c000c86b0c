// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Market} from "./Market.sol";
import {IComputeMarketTypes} from "../../src/interfaces/IComputeMarket.sol";
import {vm} from "./Vm.sol";

/// @notice Signs the market's messages, by types written out here once more: a slip in the contract's type
/// strings shows as a refused signature.
library Signing {
    struct Work {
        uint256 jobId;
        uint64 round;
        uint32 nodeId;
        uint64 units;
        bytes32 base;
        bytes32 artifact;
    }

    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant DELEGATION =
        keccak256("Delegation(address operator,address hotKey,uint64 expiresAt,uint64 nonce)");
    bytes32 private constant WORK_ORDER = keccak256(
        "WorkOrder(uint256 jobId,uint64 round,uint32 nodeId,uint64 fence,uint64 deadline,bytes32 base,bytes32 body)"
    );
    bytes32 private constant RECEIPT = keccak256(
        "Receipt(uint256 jobId,uint64 round,uint32 nodeId,uint64 units,bytes32 base,bytes32 artifact)"
    );
    bytes32 private constant ATTESTATION = keccak256(
        "RoundAttestation(uint256 jobId,uint64 round,uint32 batch,bool last,uint32 epoch,bytes32 base,bytes32 receipts,bytes32 evidence,bytes32 commitments)"
    );
    bytes32 private constant CLOSURE =
        keccak256("JobClosure(uint256 jobId,uint64 rounds,uint128 spent,uint32 epoch)");
    bytes32 private constant ACCEPTANCE = keccak256("Acceptance(uint256 jobId,uint64 round,bytes32 digest)");
    bytes32 private constant WITHDRAWAL = keccak256(
        "Withdrawal(uint32 nodeId,address to,uint128 amount,uint128 fee,uint64 nonce,uint64 deadline)"
    );
    bytes32 private constant SEATING = keccak256("Seating(uint256 jobId,uint48 maxUnits,bytes32 bids)");
    bytes32 private constant BID = keccak256(
        "Bid(uint256 jobId,uint32 nodeId,uint128 rate,uint64 capacity,uint64 expiresAt,uint64 nonce)"
    );

    function domainSeparator(uint256 chainId, address verifyingContract) internal pure returns (bytes32) {
        return
            keccak256(abi.encode(DOMAIN, keccak256("HyperGPU"), keccak256("1"), chainId, verifyingContract));
    }

    function digest(address market, bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domainSeparator(block.chainid, market), structHash));
    }

    function sign(uint256 key, bytes32 hash) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, hash);
        return abi.encodePacked(r, s, v);
    }

    function delegation(
        Market market,
        uint256 key,
        address operator,
        address hotKey,
        uint64 expiresAt,
        uint64 nonce
    ) internal view returns (bytes memory) {
        bytes32 structHash = keccak256(abi.encode(DELEGATION, operator, hotKey, expiresAt, nonce));
        return sign(key, digest(address(market), structHash));
    }

    function bid(Market market, uint256 key, IComputeMarketTypes.Bid memory offer)
        internal
        view
        returns (bytes memory)
    {
        return sign(key, digest(address(market), keccak256(abi.encode(BID, offer))));
    }

    function seating(
        Market market,
        uint256 key,
        uint256 jobId,
        uint48 maxUnits,
        IComputeMarketTypes.Bid[] memory bids
    ) internal view returns (bytes memory) {
        bytes memory hashes;
        for (uint256 i = 0; i < bids.length; ++i) {
            hashes = abi.encodePacked(hashes, keccak256(abi.encode(BID, bids[i])));
        }
        bytes32 structHash = keccak256(abi.encode(SEATING, jobId, maxUnits, keccak256(hashes)));
        return sign(key, digest(address(market), structHash));
    }

    function packedReceipt(Market market, uint256 key, Work memory work)
        internal
        view
        returns (bytes memory)
    {
        bytes memory signature = sign(key, digest(address(market), keccak256(abi.encode(RECEIPT, work))));
        return abi.encodePacked(work.nodeId, work.units, work.artifact, signature);
    }

    function attestation(
        Market market,
        uint256 key,
        IComputeMarketTypes.BatchHeader memory header,
        bytes32 receipts,
        bytes32 commitments
    ) internal view returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(
                ATTESTATION,
                header.jobId,
                header.round,
                header.batch,
                header.last,
                header.epoch,
                header.base,
                receipts,
                header.evidence,
                commitments
            )
        );
        return sign(key, digest(address(market), structHash));
    }

    function closure(Market market, uint256 key, uint256 jobId, uint64 rounds, uint128 spent, uint32 epoch)
        internal
        view
        returns (bytes memory)
    {
        return sign(key, digest(address(market), keccak256(abi.encode(CLOSURE, jobId, rounds, spent, epoch))));
    }

    function acceptance(Market market, uint256 key, uint256 jobId, uint64 round, bytes32 roundDigest)
        internal
        view
        returns (bytes memory)
    {
        return sign(
            key, digest(address(market), keccak256(abi.encode(ACCEPTANCE, jobId, round, roundDigest)))
        );
    }

    function withdrawal(Market market, uint256 key, IComputeMarketTypes.Withdrawal memory message)
        internal
        view
        returns (bytes memory)
    {
        return sign(key, digest(address(market), keccak256(abi.encode(WITHDRAWAL, message))));
    }

    /// @dev Never on chain; here because the vectors hold it too.
    function workOrder(
        uint256 jobId,
        uint64 round,
        uint32 nodeId,
        uint64 fence,
        uint64 deadline,
        bytes32 base,
        bytes32 body
    ) internal pure returns (bytes32) {
        return keccak256(abi.encode(WORK_ORDER, jobId, round, nodeId, fence, deadline, base, body));
    }
}
