// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketAccounts} from "../interfaces/IComputeMarketAccounts.sol";
import {PackedReceipts} from "../libraries/PackedReceipts.sol";
import {RoundProofs} from "../libraries/RoundProofs.sol";
import {CreditBook} from "./CreditBook.sol";

/// @title Acceptance
/// @notice A requester that is content makes a round's credit free before its challenge window is over.
abstract contract Acceptance is CreditBook {
    /// @inheritdoc IComputeMarketAccounts
    function releaseAccepted(
        uint256 jobId,
        uint64 round,
        SettledBatch[] calldata batches,
        uint256 index,
        bytes calldata receipts,
        bytes calldata qualities,
        uint256 position
    ) external {
        RoundRecord storage record = _jobs[jobId].rounds[round];
        if (!record.accepted) revert NotAccepted(jobId, round);
        (PackedReceipts.PackedReceipt memory receipt, uint16 quality) =
            RoundProofs.settled(record.digest, batches, index, receipts, qualities, position);
        uint32 nodeId = receipt.nodeId;
        _useRelease(jobId, round, nodeId);
        // Fits: it was paid.
        uint128 amount = uint128(_reward(_seat(jobId, nodeId).rate, receipt.units, quality));
        // The round's last batch was credited when it was settled; those before, since the round before was. Of
        // round 0 nobody knows since when: it is released only if no mark of the node has ever matured.
        uint64 since = record.settledAt;
        if (index + 1 < batches.length) since = round == 0 ? 1 : _jobs[jobId].rounds[round - 1].settledAt;
        if (!_release(nodeId, amount, since)) revert AlreadyFree(jobId, round, nodeId);
        emit CreditReleased(nodeId, jobId, round, amount);
    }

    function _useRelease(uint256 jobId, uint64 round, uint32 nodeId) private {
        uint256 bit = 1 << (nodeId & 0xff);
        uint256 word = _released[jobId][round][nodeId >> 8];
        if (word & bit != 0) revert AlreadyReleased(jobId, round, nodeId);
        _released[jobId][round][nodeId >> 8] = word | bit;
    }
}
