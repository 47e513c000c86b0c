// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {Governance} from "./Governance.sol";

/// @title Operators and nodes
/// @notice Stakes, the nodes that they bind, and the keys of those nodes.
abstract contract NodeRegistry is Governance {
    /// @dev The part of a node that settlement does not touch.
    /// @param previousKey The last key that was replaced.
    struct NodeProfile {
        address operator;
        uint64 retiredAt;
        address previousKey;
        uint64 bidNonce;
    }

    mapping(uint32 nodeId => NodeProfile) internal _profiles;
    mapping(address operator => Operator) internal _operators;
    mapping(address operator => uint32[]) internal _nodesOf;
    /// @dev When a key ceased to be a node's, by replacement or because it had expired before; 0 if it never did.
    mapping(uint32 nodeId => mapping(address hotKey => uint64)) private _keyEndedAt;

    /// @inheritdoc IComputeMarket
    mapping(address hotKey => uint32) public nodeOfKey;
    /// @inheritdoc IComputeMarket
    mapping(address hotKey => uint64) public delegationNonce;
    /// @inheritdoc IComputeMarket
    uint32 public nodeCount;

    /*//////////////////////////////////////////////////////////////
                         NODES AND THEIR KEYS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function registerNode(address hotKey, uint64 expiresAt, uint128 stakeAmount, bytes calldata possession)
        external
        nonReentrant
        returns (uint32 nodeId)
    {
        _useDelegation(msg.sender, hotKey, expiresAt, possession);
        _requireFreeKey(hotKey);
        if (nodeCount + 1 == MAX_NODES) revert TooManyNodes(MAX_NODES - 1);
        nodeId = ++nodeCount;

        _nodesOf[msg.sender].push(nodeId);
        nodeOfKey[hotKey] = nodeId;
        _profiles[nodeId].operator = msg.sender;
        _nodes[nodeId].hotKey = hotKey;
        _nodes[nodeId].expiresAt = expiresAt;
        emit NodeRegistered(nodeId, msg.sender, hotKey, expiresAt);

        Operator storage operator = _operators[msg.sender];
        operator.activeNodes += 1;
        if (stakeAmount != 0) {
            _addStake(msg.sender, stakeAmount);
            _pull(stakeAmount);
        }
        _requireCovered(operator);
    }

    /// @inheritdoc IComputeMarket
    function delegateHotKey(
        uint32 nodeId,
        address hotKey,
        uint64 expiresAt,
        bytes calldata operatorSignature,
        bytes calldata possession
    ) external {
        NodeProfile storage profile = _profile(nodeId);
        NodeState storage node = _nodes[nodeId];
        address current = node.hotKey;
        if (hotKey != current) {
            _requireFreeKey(hotKey);
            // The signatures do not say which of the operator's nodes they are for, so its wallet must.
            if (msg.sender != profile.operator) revert NotOperator(nodeId, msg.sender);
            delete nodeOfKey[current];
            nodeOfKey[hotKey] = nodeId;
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

    /// @inheritdoc IComputeMarket
    function retireNode(uint32 nodeId) external {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        if (profile.retiredAt != 0) revert NodeIsRetired(nodeId);
        uint64 retiredAt = uint64(block.timestamp);
        profile.retiredAt = retiredAt;
        NodeState storage node = _nodes[nodeId];
        node.expiresAt = _untilStakeIsFree(retiredAt, node.expiresAt);
        _operators[msg.sender].activeNodes -= 1;
        emit NodeRetired(nodeId);
    }

    /// @inheritdoc IComputeMarket
    function cancelBids(uint32 nodeId, uint64 minNonce) external {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        if (minNonce <= profile.bidNonce) revert NonceNotHigher(nodeId, minNonce, profile.bidNonce);
        profile.bidNonce = minNonce;
        emit BidsCancelled(nodeId, minNonce);
    }

    /*//////////////////////////////////////////////////////////////
                                STAKE
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function addStake(uint128 amount) external nonReentrant {
        _addStake(msg.sender, amount);
        _pull(amount);
    }

    /// @inheritdoc IComputeMarket
    function addStakeWithAuthorization(uint128 amount, Authorization calldata authorization)
        external
        nonReentrant
    {
        _addStake(authorization.from, amount);
        _pullAuthorized(amount, keccak256(abi.encode("addStake", amount, authorization.salt)), authorization);
    }

    /// @inheritdoc IComputeMarket
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

    /// @inheritdoc IComputeMarket
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
        holdings.stake -= amount;
        emit Unstaked(msg.sender, amount);
        _push(msg.sender, amount);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function getOperator(address operator) external view returns (Operator memory) {
        return _operators[operator];
    }

    /// @inheritdoc IComputeMarket
    function getOperatorNodes(address operator) external view returns (uint32[] memory) {
        return _nodesOf[operator];
    }

    /// @inheritdoc IComputeMarket
    function getNode(uint32 nodeId) external view returns (Node memory) {
        NodeProfile storage profile = _profile(nodeId);
        NodeState storage node = _nodes[nodeId];
        return Node({
            operator: profile.operator,
            hotKey: node.hotKey,
            expiresAt: node.expiresAt,
            retiredAt: profile.retiredAt,
            bidNonce: profile.bidNonce,
            previousKey: profile.previousKey,
            previousUntil: keyGoodUntil(nodeId, profile.previousKey)
        });
    }

    /// @inheritdoc IComputeMarket
    function keyGoodUntil(uint32 nodeId, address hotKey) public view returns (uint64) {
        NodeState storage node = _nodes[nodeId];
        uint64 endedAt = hotKey == node.hotKey ? node.expiresAt : _keyEndedAt[nodeId][hotKey];
        return endedAt == 0 ? 0 : uint64(Math.min(uint256(endedAt) + SETTLEMENT_GRACE, type(uint64).max));
    }

    /// @inheritdoc IComputeMarket
    function bidNonce(uint32 nodeId) external view returns (uint64) {
        return _profile(nodeId).bidNonce;
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _profile(uint32 nodeId) internal view returns (NodeProfile storage profile) {
        profile = _profiles[nodeId];
        if (profile.operator == address(0)) revert UnknownNode(nodeId);
    }

    function _profileOfCaller(uint32 nodeId) internal view returns (NodeProfile storage profile) {
        profile = _profile(nodeId);
        if (profile.operator != msg.sender) revert NotOperator(nodeId, msg.sender);
    }

    /// @dev Checks that the node's key signed the digest, or a key that was the node's after `graceStart`.
    function _requireSignedByNode(
        uint32 nodeId,
        bytes32 digest,
        uint8 v,
        bytes32 r,
        bytes32 s,
        uint64 graceStart
    ) internal view {
        // Zero if the signature is not valid, which no node's hot key is. Refuses a high `s` (EIP-2).
        (address signer,,) = ECDSA.tryRecover(digest, v, r, s);
        NodeState storage node = _nodes[nodeId];
        uint64 endedAt = node.expiresAt;
        if (signer != node.hotKey) {
            endedAt = _keyEndedAt[nodeId][signer];
            if (endedAt == 0) revert InvalidReceiptSignature(nodeId, signer);
        }
        if (endedAt <= graceStart) revert HotKeyExpired(nodeId, endedAt);
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
        holdings.stake += amount;
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
        uint64 nonce = delegationNonce[hotKey];
        delegationNonce[hotKey] = nonce + 1;
        structHash = MessageHashes.delegation(operator, hotKey, expiresAt, nonce);
        (address recovered,,) = ECDSA.tryRecoverCalldata(_hashTypedDataV4(structHash), possession);
        if (recovered != hotKey) revert InvalidPossession(hotKey, recovered);
    }

    /// @dev The last moment at which a retired node's stake may still be bonded or unbonding.
    function _untilStakeIsFree(uint64 retiredAt, uint64 expiresAt) private view returns (uint64) {
        return uint64(Math.min(expiresAt, retiredAt + _terms.unbondingTime));
    }

    function _requireFreeKey(address hotKey) private view {
        uint32 holder = nodeOfKey[hotKey];
        if (holder != 0) revert HotKeyTaken(hotKey, holder);
    }

    function _requireCovered(Operator storage operator) private view {
        uint256 required = uint256(_terms.minStake) * operator.activeNodes;
        if (operator.stake < required) revert InsufficientStake(required, operator.stake);
    }
}
