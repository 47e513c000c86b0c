// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IComputeMarketAccounts} from "../interfaces/IComputeMarketAccounts.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {NodeRegistry} from "./NodeRegistry.sol";

/// @title Credit
/// @notice How credit becomes money. Credit is free once it can no longer be disputed; a part of what is not yet
/// can be withdrawn against the operator's stake.
/// @dev The market does not keep when each payment was made. A mark keeps how much a node had earned at one
/// moment; once it is `challengeWindow` old, all of that is free. What accepted rounds release earlier is kept
/// apart, by whether the mark that waits holds it too, so that nothing is freed twice.
abstract contract CreditBook is NodeRegistry {
    using SafeCast for uint256;

    /*//////////////////////////////////////////////////////////////
                              WITHDRAWAL
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function withdraw(uint32 nodeId, uint128 amount, address to) external nonReentrant {
        _profileOfCaller(nodeId);
        _withdraw(nodeId, amount, to, 0);
    }

    /// @inheritdoc IComputeMarketAccounts
    function withdrawWithSignature(Withdrawal calldata withdrawal, bytes calldata signature)
        external
        nonReentrant
    {
        uint32 nodeId = withdrawal.nodeId;
        address operator = _profile(nodeId).operator;
        if (block.timestamp >= withdrawal.deadline) revert WithdrawalExpired(withdrawal.deadline);
        if (withdrawal.fee > withdrawal.amount) revert FeeAboveAmount(withdrawal.fee, withdrawal.amount);
        uint64 nonce = _accounts[nodeId].nonce++;
        if (withdrawal.nonce != nonce) revert InvalidNonce(nonce, withdrawal.nonce);
        _requireWalletSignature(operator, MessageHashes.withdrawal(withdrawal), signature);
        _withdraw(nodeId, withdrawal.amount, withdrawal.to, withdrawal.fee);
    }

    /// @inheritdoc IComputeMarketAccounts
    function distributePayments(uint32[] calldata nodeIds) external nonReentrant {
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            address operator = _profile(nodeIds[i]).operator;
            _mark(nodeIds[i]);
            uint128 amount = _withdrawable(nodeIds[i]);
            if (amount != 0) _pay(nodeIds[i], amount, operator, 0);
        }
    }

    /// @inheritdoc IComputeMarketAccounts
    function markCredit(uint32[] calldata nodeIds) external {
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            _profile(nodeIds[i]);
            _mark(nodeIds[i]);
        }
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function getNodeMetrics(uint32 nodeId) external view returns (NodeMetrics memory metrics) {
        _profile(nodeId);
        metrics = _metrics(nodeId);
        metrics.withdrawable = _withdrawable(nodeId);
    }

    /// @inheritdoc IComputeMarketAccounts
    function getOperatorMetrics(address account) external view returns (NodeMetrics memory sum) {
        Operator storage operator = _operators[account];
        uint256 free;
        uint128 advance = operator.advance;
        uint128 held;
        for (uint256 i = 0; i < _nodesOf[account].length; ++i) {
            uint32 nodeId = _nodesOf[account][i];
            NodeMetrics memory node = _metrics(nodeId);
            sum.rounds = uint32(Math.min(uint256(sum.rounds) + node.rounds, type(uint32).max));
            sum.units = uint64(Math.min(uint256(sum.units) + node.units, type(uint64).max));
            sum.qualitySum = uint64(Math.min(uint256(sum.qualitySum) + node.qualitySum, type(uint64).max));
            sum.faults += node.faults;
            sum.credit += node.credit;
            sum.earned += node.earned;
            (uint128 nodeFree, uint128 nodeAdvance) = _standing(nodeId);
            free += Math.min(node.credit, nodeFree);
            advance = advance - _accounts[nodeId].advance + nodeAdvance;
            held += uint128(Math.min(node.credit, _held(nodeId)));
        }
        sum.withdrawable = _excess(uint128(Math.min(sum.credit, free + _room(operator, advance))), held);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev Adds to a node's credit outside of a batch. The caller takes it from somewhere.
    function _credit(uint32 nodeId, uint128 amount) internal {
        NodeWork storage node = _nodes[nodeId].work;
        node.credit = (uint256(node.credit) + amount).toUint96();
        _holdings.credit += amount;
    }

    /// @dev Takes from a node's credit, to pay it out or to slash it.
    function _take(uint32 nodeId, uint128 amount) internal {
        NodeWork storage node = _nodes[nodeId].work;
        node.credit = (uint256(node.credit) - amount).toUint96();
        _holdings.credit -= amount;
        _accounts[nodeId].taken += amount;
        _updateAdvance(nodeId);
    }

    /// @dev Frees an amount that was credited at `since` or later.
    /// @return whether A mark that is free already may hold it, so that nothing was done.
    function _release(uint32 nodeId, uint128 amount, uint64 since) internal returns (bool) {
        _mature(nodeId);
        Account storage account = _accounts[nodeId];
        if (since <= account.maturedAt) return false;
        if (since <= account.markedAt) {
            account.releasedMarked += amount;
        } else {
            account.releasedSince += amount;
        }
        _updateAdvance(nodeId);
        return true;
    }

    function _withdraw(uint32 nodeId, uint128 amount, address to, uint128 fee) private {
        _requirePositive(amount);
        _requireNonZero(to);
        if (to == address(this)) revert InvalidRecipient(to);
        _mark(nodeId);
        uint128 withdrawable = _withdrawable(nodeId);
        if (amount > withdrawable) revert InsufficientCredit(nodeId, amount, withdrawable);
        _pay(nodeId, amount, to, fee);
    }

    function _pay(uint32 nodeId, uint128 amount, address to, uint128 fee) private {
        _take(nodeId, amount);
        if (amount != fee) _send(nodeId, to, amount - fee);
        if (fee != 0) _send(nodeId, msg.sender, fee);
    }

    function _send(uint32 nodeId, address to, uint128 amount) private {
        emit CreditWithdrawn(nodeId, to, amount);
        _push(to, amount);
    }

    /// @dev Lets the mark that waits mature, if it is time, and makes a new one, if none waits.
    function _mark(uint32 nodeId) private {
        _mature(nodeId);
        Account storage account = _accounts[nodeId];
        uint128 earned = _nodes[nodeId].work.credit + account.taken;
        if (account.markedAt == 0 && earned > account.matured) {
            account.marked = earned;
            account.markedAt = uint64(block.timestamp);
            // All that was released by now was credited by now: the mark holds it.
            account.releasedMarked = account.releasedSince;
            account.releasedSince = 0;
            emit CreditMarked(nodeId, earned, uint64(block.timestamp) + _terms.challengeWindow);
        }
    }

    function _mature(uint32 nodeId) private {
        Account storage account = _accounts[nodeId];
        if (!_isMature(account)) return;
        account.matured = account.marked;
        account.maturedAt = account.markedAt;
        account.releasedMarked = 0;
        account.markedAt = 0;
        _updateAdvance(nodeId);
    }

    function _updateAdvance(uint32 nodeId) private {
        Account storage account = _accounts[nodeId];
        Operator storage operator = _operators[_profiles[nodeId].operator];
        uint128 advance = _excess(account.taken, _freed(account));
        operator.advance = operator.advance - account.advance + advance;
        account.advance = advance;
    }

    function _withdrawable(uint32 nodeId) private view returns (uint128) {
        Operator storage operator = _operators[_profiles[nodeId].operator];
        (uint128 free, uint128 advance) = _standing(nodeId);
        uint256 room = _room(operator, operator.advance - _accounts[nodeId].advance + advance);
        // Fits: at most the credit.
        return _excess(uint128(Math.min(_nodes[nodeId].work.credit, free + room)), _held(nodeId));
    }

    /// @dev What must stay while the court's disputes about it are open.
    function _held(uint32 nodeId) private view returns (uint128) {
        Hold storage hold = _holds[_court][nodeId];
        return block.timestamp < hold.until ? hold.amount : 0;
    }

    /// @dev What the operator can still withdraw against its stake.
    function _room(Operator storage operator, uint128 advance) private view returns (uint256) {
        uint256 limit = (uint256(operator.stake) + operator.unbonding) * _terms.instantShare / ONE;
        return limit > advance ? limit - advance : 0;
    }

    /// @dev What of a node's credit is free, and what it has taken before it was.
    function _standing(uint32 nodeId) private view returns (uint128 free, uint128 advance) {
        Account storage account = _accounts[nodeId];
        uint128 freed = _freed(account);
        return (_excess(freed, account.taken), _excess(account.taken, freed));
    }

    /// @dev What of the node's earnings was ever free, as of now.
    function _freed(Account storage account) private view returns (uint128) {
        if (_isMature(account)) return account.marked + account.releasedSince;
        return account.matured + account.releasedMarked + account.releasedSince;
    }

    function _isMature(Account storage account) private view returns (bool) {
        uint64 markedAt = account.markedAt;
        return markedAt != 0 && block.timestamp >= markedAt + _terms.challengeWindow;
    }

    function _excess(uint128 a, uint128 b) private pure returns (uint128) {
        return a > b ? a - b : 0;
    }

    function _metrics(uint32 nodeId) private view returns (NodeMetrics memory metrics) {
        NodeWork storage node = _nodes[nodeId].work;
        metrics.rounds = node.rounds;
        metrics.units = node.units;
        metrics.qualitySum = node.qualitySum;
        metrics.faults = _nodes[nodeId].key.faults;
        metrics.credit = node.credit;
        metrics.earned = node.credit + _accounts[nodeId].taken;
    }
}
