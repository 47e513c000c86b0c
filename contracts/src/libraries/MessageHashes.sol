// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketTypes} from "../interfaces/IComputeMarketTypes.sol";

/// @title Struct hashes of the signed messages
/// @notice EIP-712 `hashStruct` of each message that the market reads. The other languages' mirrors are held to
/// the same values by tests/vectors/protocol.json.
library MessageHashes {
    /// @notice A receipt as EIP-712 encodes it: in memory each field fills a word.
    struct Receipt {
        bytes32 typeHash;
        uint256 jobId;
        uint256 round;
        uint256 nodeId;
        uint256 units;
        bytes32 base;
        bytes32 artifact;
    }

    bytes32 internal constant DELEGATION_TYPEHASH =
        keccak256("Delegation(address operator,address hotKey,uint64 expiresAt,uint64 nonce)");
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(uint256 jobId,uint64 round,uint32 nodeId,uint64 units,bytes32 base,bytes32 artifact)"
    );
    bytes32 internal constant ROUND_ATTESTATION_TYPEHASH = keccak256(
        "RoundAttestation(uint256 jobId,uint64 round,uint32 batch,bool last,uint32 epoch,bytes32 base,bytes32 receipts,bytes32 evidence,bytes32 commitments)"
    );
    bytes32 internal constant JOB_CLOSURE_TYPEHASH =
        keccak256("JobClosure(uint256 jobId,uint64 rounds,uint128 spent,uint32 epoch)");
    bytes32 internal constant BID_TYPEHASH = keccak256(
        "Bid(uint256 jobId,uint32 nodeId,uint128 rate,uint64 capacity,uint64 expiresAt,uint64 nonce)"
    );
    bytes32 internal constant SEATING_TYPEHASH =
        keccak256("Seating(uint256 jobId,uint48 maxUnits,bytes32 bids)");
    bytes32 internal constant ACCEPTANCE_TYPEHASH =
        keccak256("Acceptance(uint256 jobId,uint64 round,bytes32 digest)");
    bytes32 internal constant WITHDRAWAL_TYPEHASH = keccak256(
        "Withdrawal(uint32 nodeId,address to,uint128 amount,uint128 fee,uint64 nonce,uint64 deadline)"
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
        return hash(Receipt(RECEIPT_TYPEHASH, jobId, round, nodeId, units, base, artifact));
    }

    /// @notice Of a message that a loop can fill again and again, so that memory does not grow with each receipt.
    function hash(Receipt memory message) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            result := keccak256(message, 0xe0)
        }
    }

    /// @param receipts keccak256 of the packed receipts.
    /// @param commitments keccak256 of the list of commitments.
    function roundAttestation(
        IComputeMarketTypes.BatchHeader calldata header,
        bytes32 receipts,
        bytes32 commitments
    ) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                ROUND_ATTESTATION_TYPEHASH,
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
    }

    function jobClosure(uint256 jobId, uint64 rounds, uint128 spent, uint32 epoch)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(JOB_CLOSURE_TYPEHASH, jobId, rounds, spent, epoch));
    }

    function bid(IComputeMarketTypes.Bid calldata offer) internal pure returns (bytes32) {
        return keccak256(abi.encode(BID_TYPEHASH, offer));
    }

    /// @return The consent to seat these bids, in this order. `bids` in it is keccak256 of their struct hashes.
    function seating(uint256 jobId, uint48 maxUnits, IComputeMarketTypes.Bid[] calldata bids)
        internal
        pure
        returns (bytes32)
    {
        bytes32[] memory hashes = new bytes32[](bids.length);
        for (uint256 i = 0; i < bids.length; ++i) {
            hashes[i] = bid(bids[i]);
        }
        return keccak256(abi.encode(SEATING_TYPEHASH, jobId, maxUnits, keccak256(abi.encodePacked(hashes))));
    }

    /// @param digest The round's, right-padded.
    function acceptance(uint256 jobId, uint64 round, bytes32 digest) internal pure returns (bytes32) {
        return keccak256(abi.encode(ACCEPTANCE_TYPEHASH, jobId, round, digest));
    }

    function withdrawal(IComputeMarketTypes.Withdrawal calldata message) internal pure returns (bytes32) {
        return keccak256(abi.encode(WITHDRAWAL_TYPEHASH, message));
    }
}
