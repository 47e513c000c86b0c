// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarketAccounts} from "../interfaces/IComputeMarketAccounts.sol";
import {CreditBook} from "./CreditBook.sol";

/// @title Discipline
/// @notice What the dispute court may do to money: take what a proven fault costs, pay what was owed, and keep a
/// record while it is disputed. Bounded here, whatever the court says.
abstract contract Discipline is CreditBook {
    /// @dev The insurance pool pays at most its tenth part for one case, so that no case empties it.
    uint128 private constant INSURANCE_PART = 10;

    /// @dev What a penalty took, and from where.
    struct Taken {
        uint128 credit;
        uint128 stake;
        uint128 unbonding;
        uint128 insurance;
    }

    /// @inheritdoc IComputeMarketAccounts
    function penalize(Penalty calldata fault) external onlyCourt {
        Job storage job = _existingJob(fault.jobId);
        address account = _profile(fault.nodeId).operator;
        _requireWithinSeat(fault);
        uint128 most = _terms.minStake + fault.restitution;
        if (fault.penalty > most) revert PenaltyAboveMax(fault.penalty, most);
        if (fault.costs > fault.penalty / 4) revert PenaltyAboveMax(fault.costs, fault.penalty / 4);
        if (_nodes[fault.nodeId].key.faults != type(uint32).max) _nodes[fault.nodeId].key.faults += 1;

        Taken memory taken = _collectFrom(fault.nodeId, account, fault.restitution + fault.penalty);
        uint128 got = taken.credit + taken.stake + taken.unbonding;
        // What lacks, lacks first of the penalty, with what is in it for challenger and insurance.
        uint128 restitution = uint128(Math.min(got, fault.restitution));
        uint128 penalty = got - restitution;
        taken.insurance =
            uint128(Math.min(_holdings.insurance / INSURANCE_PART, fault.restitution - restitution));
        uint128 costs = uint128(Math.min(fault.costs, penalty / 4));
        uint128 toInsurance = (penalty - costs) / 2;
        restitution += taken.insurance + (penalty - costs - toInsurance);

        _holdings.insurance = _holdings.insurance - taken.insurance + toInsurance;
        if (costs != 0) _owe(fault.challenger, costs);
        _restitute(job, restitution);
        emit NodeSlashed(
            fault.nodeId,
            fault.caseId,
            fault.jobId,
            taken.credit,
            taken.stake,
            taken.unbonding,
            taken.insurance,
            restitution,
            fault.challenger,
            costs,
            toInsurance
        );
    }

    /// @inheritdoc IComputeMarketAccounts
    function holdCredit(uint32 nodeId, uint128 amount) external onlyCourt {
        _profile(nodeId);
        Hold storage hold = _holds[msg.sender][nodeId];
        hold.amount += amount;
        hold.until = uint64(block.timestamp) + _terms.disputeTime;
        emit CreditHeld(nodeId, amount, hold.until);
    }

    /// @inheritdoc IComputeMarketAccounts
    function freeCredit(uint32 nodeId, uint128 amount) external onlyCourt {
        Hold storage hold = _holds[msg.sender][nodeId];
        hold.amount -= amount;
        emit CreditFreed(nodeId, amount);
    }

    /// @inheritdoc IComputeMarketAccounts
    function award(
        uint256 caseId,
        uint256 jobId,
        uint64 round,
        uint32 nodeId,
        uint64 units,
        uint16 from,
        uint16 to
    ) external onlyCourt returns (uint128 paid) {
        Job storage job = _existingJob(jobId);
        // A round that never ends must not keep a case from its end: a batch of it is settled.
        if (_jobs[jobId].rounds[round].digest == 0) revert RoundNotSettled(jobId, round);
        if (to > ONE) revert QualityAboveMax(nodeId, to);
        if (to <= from) revert NothingToAward(from, to);
        Seat storage seat = _seat(jobId, nodeId);
        _requireCapacity(seat.capacity, nodeId, units);
        uint256 owed = _reward(seat.rate, units, to) - _reward(seat.rate, units, from);
        uint128 available = job.closed ? 0 : job.escrow - job.spent - job.reserved;
        // Fits: at most the available.
        paid = uint128(Math.min(owed, available));
        job.spent += paid;
        _holdings.escrow -= paid;
        _credit(nodeId, paid);
        emit CreditAwarded(caseId, jobId, nodeId, round, paid);
    }

    /// @inheritdoc IComputeMarketAccounts
    function holdRecord(uint256 jobId, uint64 round, uint32 nodeId)
        external
        onlyCourt
        returns (uint64 units)
    {
        Job storage job = _openJob(jobId);
        if (round >= job.round) revert RoundNotSettled(jobId, round);
        Seat storage seat = _seat(jobId, nodeId);
        if (seat.recordedRound != round + 1) revert NoRecord(jobId, round, nodeId);
        if (seat.claimed) revert RecordIsHeld(jobId, round, nodeId);
        seat.claimed = true;
        emit RecordHeld(jobId, round, nodeId);
        return seat.recordedUnits;
    }

    /// @inheritdoc IComputeMarketAccounts
    function dropRecord(uint256 jobId, uint32 nodeId) external onlyCourt {
        Seat storage seat = _seat(jobId, nodeId);
        // It has lapsed: that must not keep a late case from ending.
        if (!seat.claimed) return;
        uint64 round = _recordedRound(jobId, seat, nodeId);
        _endRecord(_openJob(jobId), seat);
        emit RecordDropped(jobId, round, nodeId);
    }

    /// @dev No job gets more back than the node's seat in it could have been paid for one receipt.
    function _requireWithinSeat(Penalty calldata fault) private view {
        Seat storage seat = _seats[fault.jobId][fault.nodeId];
        uint256 most = _reward(seat.rate, seat.capacity, ONE);
        // Fits: it is below the restitution.
        if (fault.restitution > most) revert PenaltyAboveMax(fault.restitution, uint128(most));
    }

    /// @dev Up to `due`: from the node's credit, then its operator's stake, then what is unbonding.
    function _collectFrom(uint32 nodeId, address account, uint128 due) private returns (Taken memory taken) {
        Operator storage operator = _operators[account];
        taken.credit = uint128(Math.min(_nodes[nodeId].work.credit, due));
        taken.stake = uint128(Math.min(operator.stake, due - taken.credit));
        taken.unbonding = uint128(Math.min(operator.unbonding, due - taken.credit - taken.stake));
        if (taken.credit != 0) _take(nodeId, taken.credit);
        operator.stake -= taken.stake;
        operator.unbonding -= taken.unbonding;
        _holdings.stake -= taken.stake + taken.unbonding;
    }

    function _owe(address account, uint128 amount) private {
        _owedTo[account] += amount;
        _holdings.owed += amount;
    }

    /// @dev Gives a harmed job its due: to its escrow, or to its requester once it is closed.
    function _restitute(Job storage job, uint128 amount) private {
        if (job.closed) {
            _owe(job.requester, amount);
            return;
        }
        uint128 unspent = uint128(Math.min(job.spent, amount));
        job.spent -= unspent;
        job.escrow += amount - unspent;
        _holdings.escrow += amount;
    }
}
