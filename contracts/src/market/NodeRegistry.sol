// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {MessageHashes} from "../libraries/MessageHashes.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Operators and nodes
/// @notice Stakes, the nodes that they bind, and the keys of those nodes.
abstract contract NodeRegistry is MarketBase {
    /// @dev What settlement touches of a node: two slots. Counters are as wide as fits, and saturate.
    struct NodeState {
        address hotKey;
        uint64 expiresAt;
        uint32 rounds;
        uint104 credit;
        uint64 units;
        uint48 qualitySum;
        uint40 lastSettledAt;
    }

    /// @dev The rest of a node, which settlement does not touch.
    struct NodeProfile {
        address operator;
        uint64 retiredAt;
        uint128 withdrawn;
        uint64 bidNonce;
    }

    uint256 internal constant MAX_NODES = 1 << 24;

    /// @inheritdoc IComputeMarket
    uint128 public immutable minStake;
    /// @inheritdoc IComputeMarket
    uint64 public immutable unbondingTime;

    NodeState[MAX_NODES] internal _nodes;
    mapping(uint32 nodeId => NodeProfile) internal _profiles;
    mapping(address operator => Operator) private _operators;

    /// @inheritdoc IComputeMarket
    mapping(address hotKey => uint32) public nodeOfKey;
    /// @inheritdoc IComputeMarket
    mapping(address hotKey => uint64) public delegationNonce;
    /// @inheritdoc IComputeMarket
    uint32 public nodeCount;

    constructor(uint128 minStake_, uint64 unbondingTime_) {
        _requireDuration(unbondingTime_);
        minStake = minStake_;
        unbondingTime = unbondingTime_;
    }

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

        Operator storage operator = _operators[msg.sender];
        operator.activeNodes += 1;
        operator.stake += stakeAmount;
        _requireCovered(operator.stake, operator.activeNodes);

        nodeOfKey[hotKey] = nodeId;
        _profiles[nodeId].operator = msg.sender;
        _nodes[nodeId].hotKey = hotKey;
        _nodes[nodeId].expiresAt = expiresAt;
        emit NodeRegistered(nodeId, msg.sender, hotKey, expiresAt);

        if (stakeAmount != 0) {
            emit StakeAdded(msg.sender, stakeAmount, operator.stake);
            _pull(stakeAmount);
        }
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
        }
        bytes32 digest = _useDelegation(profile.operator, hotKey, expiresAt, possession);
        _requireWalletSignature(profile.operator, digest, operatorSignature);

        if (profile.retiredAt != 0) expiresAt = _untilStakeIsFree(profile.retiredAt, expiresAt);
        delete nodeOfKey[current];
        nodeOfKey[hotKey] = nodeId;
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
        _requirePositive(amount);
        Operator storage operator = _operators[msg.sender];
        operator.stake += amount;
        emit StakeAdded(msg.sender, amount, operator.stake);
        _pull(amount);
    }

    /// @inheritdoc IComputeMarket
    function requestUnstake(uint128 amount) external {
        _requirePositive(amount);
        Operator storage operator = _operators[msg.sender];
        if (amount > operator.stake) revert InsufficientStake(amount, operator.stake);
        operator.stake -= amount;
        _requireCovered(operator.stake, operator.activeNodes);
        operator.unbonding += amount;
        operator.unstakeAvailableAt = uint64(block.timestamp) + unbondingTime;
        emit UnstakeRequested(msg.sender, amount, operator.unstakeAvailableAt);
    }

    /// @inheritdoc IComputeMarket
    function unstake() external nonReentrant {
        Operator storage operator = _operators[msg.sender];
        uint128 amount = operator.unbonding;
        if (amount == 0) revert NothingToUnstake(msg.sender);
        _requireReached(operator.unstakeAvailableAt);
        operator.unbonding = 0;
        operator.unstakeAvailableAt = 0;
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
    function getNode(uint32 nodeId) external view returns (Node memory) {
        NodeProfile storage profile = _profile(nodeId);
        NodeState storage node = _nodes[nodeId];
        return Node({
            operator: profile.operator,
            hotKey: node.hotKey,
            expiresAt: node.expiresAt,
            retiredAt: profile.retiredAt,
            bidNonce: profile.bidNonce
        });
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

    /// @dev An ordinary signature first: a wallet under EIP-7702 has code, and may yet sign with its key.
    function _requireWalletSignature(address wallet, bytes32 digest, bytes calldata signature) internal view {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (signer == wallet) return;
        if (!SignatureChecker.isValidERC1271SignatureNowCalldata(wallet, digest, signature)) {
            revert InvalidOperatorSignature(wallet);
        }
    }

    /// @dev Checks that the hot key's holder agrees, and uses up the delegation's nonce.
    /// @return digest What the operator has to have signed too.
    function _useDelegation(address operator, address hotKey, uint64 expiresAt, bytes calldata possession)
        private
        returns (bytes32 digest)
    {
        _requireNonZero(hotKey);
        if (block.timestamp >= expiresAt) revert DelegationExpired(expiresAt);
        uint64 nonce = delegationNonce[hotKey];
        delegationNonce[hotKey] = nonce + 1;
        digest = _hashTypedDataV4(MessageHashes.delegation(operator, hotKey, expiresAt, nonce));
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, possession);
        if (recovered != hotKey) revert InvalidPossession(hotKey, recovered);
    }

    /// @dev The last moment at which a retired node's stake may still be bonded or unbonding.
    function _untilStakeIsFree(uint64 retiredAt, uint64 expiresAt) private view returns (uint64) {
        return uint64(Math.min(expiresAt, retiredAt + unbondingTime));
    }

    function _requireFreeKey(address hotKey) private view {
        uint32 holder = nodeOfKey[hotKey];
        if (holder != 0) revert HotKeyTaken(hotKey, holder);
    }

    function _requireCovered(uint128 stake, uint32 activeNodes) private view {
        uint256 required = uint256(minStake) * activeNodes;
        if (stake < required) revert InsufficientStake(required, stake);
    }
}
