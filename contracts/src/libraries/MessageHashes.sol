// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketTypes} from "../interfaces/IComputeMarket.sol";

/// @title Struct hashes of the signed messages
/// @notice EIP-712 `hashStruct` of each message that the market reads. The other languages' mirrors are held to
/// the same values by tests/vectors/protocol.json.
library MessageHashes {
    bytes32 internal constant DELEGATION_TYPEHASH =
        keccak256("Delegation(address operator,address hotKey,uint64 expiresAt,uint64 nonce)");
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(uint256 jobId,uint64 round,uint32 nodeId,uint64 units,bytes32 base,bytes32 artifact)"
    );
    bytes32 internal constant ROUND_ATTESTATION_TYPEHASH = keccak256(
        "RoundAttestation(uint256 jobId,uint64 round,uint32 batch,bool last,bytes32 base,bytes32 receipts,bytes32 evidence)"
    );
    bytes32 internal constant JOB_CLOSURE_TYPEHASH =
        keccak256("JobClosure(uint256 jobId,uint64 rounds,uint128 spent)");
    bytes32 internal constant BID_TYPEHASH = keccak256(
        "Bid(uint256 jobId,uint32 nodeId,uint128 rate,uint64 capacity,uint64 expiresAt,uint64 nonce)"
    );

    function delegation(address operator, address hotKey, uint64 expiresAt, uint64 nonce)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(DELEGATION_TYPEHASH, operator, hotKey, expiresAt, nonce));
    }

    function receipt(uint256 jobId, uint64 round, uint32 nodeId, uint64 units, bytes32 base, bytes32 artifact)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, jobId, round, nodeId, units, base, artifact));
    }

    /// @param receipts keccak256 of the packed receipts.
    function roundAttestation(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes32 receipts,
        bytes32 evidence
    ) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(ROUND_ATTESTATION_TYPEHASH, jobId, round, batch, last, base, receipts, evidence)
        );
    }

    function jobClosure(uint256 jobId, uint64 rounds, uint128 spent) internal pure returns (bytes32) {
        return keccak256(abi.encode(JOB_CLOSURE_TYPEHASH, jobId, rounds, spent));
    }

    function bid(IComputeMarketTypes.Bid calldata offer) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                BID_TYPEHASH,
                offer.jobId,
                offer.nodeId,
                offer.rate,
                offer.capacity,
                offer.expiresAt,
                offer.nonce
            )
        );
    }
}
