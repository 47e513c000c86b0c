// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeMarketCore} from "../interfaces/IComputeMarketCore.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Views of jobs
/// @notice Jobs, seats and rounds, as the market keeps them.
abstract contract JobViews is MarketBase, IComputeMarketCore {
    /// @inheritdoc IComputeMarketCore
    function getJob(uint256 jobId) external view returns (Job memory job) {
        Job storage stored = _existingJob(jobId);
        job = stored;
        job.exitAvailableAt = _exitAvailableAt(jobId, stored);
    }

    /// @inheritdoc IComputeMarketCore
    function jobCount() external view returns (uint256) {
        return _jobCount;
    }

    /// @inheritdoc IComputeMarketCore
    function getSeat(uint256 jobId, uint32 nodeId) external view returns (Seat memory seat) {
        if (jobId < MAX_JOBS && nodeId < MAX_NODES) seat = _seats[jobId][nodeId];
    }

    /// @inheritdoc IComputeMarketCore
    function getRound(uint256 jobId, uint64 round) external view returns (RoundRecord memory) {
        return _jobs[jobId].rounds[round];
    }

    /// @inheritdoc IComputeMarketCore
    function calculateRewards(uint256 jobId, uint32 nodeId, uint64 units, uint16 quality)
        external
        view
        returns (uint256 amount)
    {
        _existingJob(jobId);
        Seat storage seat = _seat(jobId, nodeId);
        _requireCapacity(seat.capacity, nodeId, units);
        if (quality > ONE) revert QualityAboveMax(nodeId, quality);
        return _reward(seat.rate, units, quality);
    }
}
