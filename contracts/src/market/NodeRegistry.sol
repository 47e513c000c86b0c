// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarketAccounts} from "../interfaces/IComputeMarketAccounts.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {Governance} from "./Governance.sol";

/// @title Operators and nodes
/// @notice Stakes, the nodes that they bind, and the keys of those nodes.
abstract contract NodeRegistry is Governance {
    /*//////////////////////////////////////////////////////////////
                         NODES AND THEIR KEYS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function registerNode(address hotKey, uint64 expiresAt, uint128 stakeAmount, bytes calldata possession)
        external
        nonReentrant
        returns (uint32 nodeId)
    {
        _useDelegation(msg.sender, hotKey, expiresAt, possession);
        _requireFreeKey(hotKey);
        if (_nodeCount + 1 == MAX_NODES) revert TooManyNodes(MAX_NODES - 1);
        nodeId = ++_nodeCount;

        _nodesOf[msg.sender].push(nodeId);
        _nodeOfKey[hotKey] = nodeId;
        _profiles[nodeId].operator = msg.sender;
        _nodes[nodeId].key.hotKey = hotKey;
        _nodes[nodeId].key.expiresAt = expiresAt;
        emit NodeRegistered(nodeId, msg.sender, hotKey, expiresAt);

        Operator storage operator = _operators[msg.sender];
        operator.activeNodes += 1;
        if (stakeAmount != 0) {
            _addStake(msg.sender, stakeAmount);
            _pull(stakeAmount);
        }
        _requireCovered(operator);
    }

    /// @inheritdoc IComputeMarketAccounts
    function delegateHotKey(
        uint32 nodeId,
        address hotKey,
        uint64 expiresAt,
        bytes calldata operatorSignature,
        bytes calldata possession
    ) external {
        NodeProfile storage profile = _profile(nodeId);
        NodeKey storage node = _nodes[nodeId].key;
        address current = node.hotKey;
        if (hotKey != current) {
            _requireFreeKey(hotKey);
            // The signatures do not say which of the operator's nodes they are for, so its wallet must.
            if (msg.sender != profile.operator) revert NotOperator(nodeId, msg.sender);
            delete _nodeOfKey[current];
            _nodeOfKey[hotKey] = nodeId;
            profile.previousKey = current;
            _keyEndedAt[nodeId][current] = uint64(Math.min(block.timestamp, node.expiresAt));
        }
        bytes32 structHash = _useDelegation(profile.operator, hotKey, expiresAt, possession);
        _requireWalletSignature(profile.operator, structHash, operatorSignature);

        if (profile.retiredAt != 0) expiresAt = _untilStakeIsFree(profile.retiredAt, expiresAt);
        node.hotKey = hotKey;
        node.expiresAt = expiresAt;
        emit HotKeyDelegated(nodeId, hotKey, expiresAt);
    }

    /// @inheritdoc IComputeMarketAccounts
    function retireNode(uint32 nodeId) external {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        if (profile.retiredAt != 0) revert NodeIsRetired(nodeId);
        uint64 retiredAt = uint64(block.timestamp);
        profile.retiredAt = retiredAt;
        NodeKey storage node = _nodes[nodeId].key;
        node.expiresAt = _untilStakeIsFree(retiredAt, node.expiresAt);
        _operators[msg.sender].activeNodes -= 1;
        emit NodeRetired(nodeId);
    }

    /// @inheritdoc IComputeMarketAccounts
    function cancelBids(uint32 nodeId, uint64 minNonce) external {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        if (minNonce <= profile.bidNonce) revert NonceNotHigher(nodeId, minNonce, profile.bidNonce);
        profile.bidNonce = minNonce;
        emit BidsCancelled(nodeId, minNonce);
    }

    /*//////////////////////////////////////////////////////////////
                                STAKE
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function addStake(uint128 amount) external nonReentrant {
        _addStake(msg.sender, amount);
        _pull(amount);
    }

    /// @inheritdoc IComputeMarketAccounts
    function addStakeWithAuthorization(uint128 amount, Authorization calldata authorization)
        external
        nonReentrant
    {
        _addStake(authorization.from, amount);
        _pullAuthorized(amount, keccak256(abi.encode("addStake", amount, authorization.salt)), authorization);
    }

    /// @inheritdoc IComputeMarketAccounts
    function requestUnstake(uint128 amount) external {
        _requirePositive(amount);
        Operator storage operator = _operators[msg.sender];
        if (amount > operator.stake) revert InsufficientStake(amount, operator.stake);
        operator.stake -= amount;
        _requireCovered(operator);
        operator.unbonding += amount;
        operator.unstakeAvailableAt = uint64(block.timestamp) + _terms.unbondingTime;
        emit UnstakeRequested(msg.sender, amount, operator.unstakeAvailableAt);
    }

    /// @inheritdoc IComputeMarketAccounts
    function unstake() external nonReentrant {
        Operator storage operator = _operators[msg.sender];
        uint256 slashable = uint256(operator.stake) + operator.unbonding;
        uint256 kept = Math.min(slashable, _coverOf(operator.advance));
        // Fits: at most `unbonding`.
        uint128 amount = uint128(Math.min(operator.unbonding, slashable - kept));
        if (amount == 0) revert NothingToUnstake(msg.sender);
        _requireReached(operator.unstakeAvailableAt);
        operator.unbonding -= amount;
        if (operator.unbonding == 0) operator.unstakeAvailableAt = 0;
        _holdings.stake -= amount;
        emit Unstaked(msg.sender, amount);
        _push(msg.sender, amount);
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _profileOfCaller(uint32 nodeId) internal view returns (NodeProfile storage profile) {
        profile = _profile(nodeId);
        if (profile.operator != msg.sender) revert NotOperator(nodeId, msg.sender);
    }

    /// @dev Stake that must stay while an operator has withdrawn `advance` before its challenge windows are over.
    function _coverOf(uint128 advance) private view returns (uint256) {
        if (advance == 0) return 0;
        return Math.ceilDiv(uint256(advance) * ONE, Math.max(_terms.instantShare, 1));
    }

    function _addStake(address account, uint128 amount) private {
        _requirePositive(amount);
        Operator storage operator = _operators[account];
        operator.stake += amount;
        _holdings.stake += amount;
        emit StakeAdded(account, amount, operator.stake);
    }

    /// @dev Checks that the hot key's holder agrees, and uses up the delegation's nonce.
    /// @return structHash What the operator has to have signed too.
    function _useDelegation(address operator, address hotKey, uint64 expiresAt, bytes calldata possession)
        private
        returns (bytes32 structHash)
    {
        _requireNonZero(hotKey);
        if (block.timestamp >= expiresAt) revert DelegationExpired(expiresAt);
        uint64 nonce = _delegationNonce[hotKey];
        _delegationNonce[hotKey] = nonce + 1;
        structHash = MessageHashes.delegation(operator, hotKey, expiresAt, nonce);
        (address recovered,,) = ECDSA.tryRecoverCalldata(_hashTypedDataV4(structHash), possession);
        if (recovered != hotKey) revert InvalidPossession(hotKey, recovered);
    }

    /// @dev The last moment at which a retired node's stake may still be bonded or unbonding.
    function _untilStakeIsFree(uint64 retiredAt, uint64 expiresAt) private view returns (uint64) {
        return uint64(Math.min(expiresAt, retiredAt + _terms.unbondingTime));
    }

    function _requireFreeKey(address hotKey) private view {
        uint32 holder = _nodeOfKey[hotKey];
        if (holder != 0) revert HotKeyTaken(hotKey, holder);
    }

    function _requireCovered(Operator storage operator) private view {
        uint256 required = uint256(_terms.minStake) * operator.activeNodes;
        if (operator.stake < required) revert InsufficientStake(required, operator.stake);
    }
}
