// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IComputeMarketAccounts} from "../interfaces/IComputeMarketAccounts.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Views
/// @notice What the market keeps, as it is. Views that compute are beside what they compute.
abstract contract Views is MarketBase, IComputeMarketAccounts {
    /*//////////////////////////////////////////////////////////////
                          OPERATORS AND NODES
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function getOperator(address operator) external view returns (Operator memory) {
        return _operators[operator];
    }

    /// @inheritdoc IComputeMarketAccounts
    function getOperatorNodes(address operator) external view returns (uint32[] memory) {
        return _nodesOf[operator];
    }

    /// @inheritdoc IComputeMarketAccounts
    function getNode(uint32 nodeId) external view returns (Node memory) {
        NodeProfile storage profile = _profile(nodeId);
        NodeKey storage node = _nodes[nodeId].key;
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

    /// @inheritdoc IComputeMarketAccounts
    function keyGoodUntil(uint32 nodeId, address hotKey) public view returns (uint64) {
        _profile(nodeId);
        NodeKey storage node = _nodes[nodeId].key;
        uint64 endedAt = hotKey == node.hotKey ? node.expiresAt : _keyEndedAt[nodeId][hotKey];
        return endedAt == 0 ? 0 : uint64(Math.min(uint256(endedAt) + SETTLEMENT_GRACE, type(uint64).max));
    }

    /// @inheritdoc IComputeMarketAccounts
    function nodeOfKey(address hotKey) external view returns (uint32 nodeId) {
        return _nodeOfKey[hotKey];
    }

    /// @inheritdoc IComputeMarketAccounts
    function nodeCount() external view returns (uint32) {
        return _nodeCount;
    }

    /// @inheritdoc IComputeMarketAccounts
    function delegationNonce(address hotKey) external view returns (uint64) {
        return _delegationNonce[hotKey];
    }

    /// @inheritdoc IComputeMarketAccounts
    function withdrawalNonce(uint32 nodeId) external view returns (uint64) {
        _profile(nodeId);
        return _accounts[nodeId].nonce;
    }

    /// @inheritdoc IComputeMarketAccounts
    function bidNonce(uint32 nodeId) external view returns (uint64) {
        return _profile(nodeId).bidNonce;
    }

    /*//////////////////////////////////////////////////////////////
                               ATTESTORS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function getAttestors() external view returns (uint32 epoch, address[] memory members, uint8 quorum) {
        epoch = _epoch;
        (members, quorum,) = getEpoch(epoch);
    }

    /// @inheritdoc IComputeMarketAccounts
    function getEpoch(uint32 epoch)
        public
        view
        returns (address[] memory members, uint8 quorum, uint64 goodUntil)
    {
        Epoch storage set = _epochs[epoch];
        members = new address[](set.size);
        for (uint256 i = 0; i < members.length; ++i) {
            members[i] = set.members[i];
        }
        goodUntil = set.endedAt == 0 ? 0 : set.endedAt + SETTLEMENT_GRACE;
        return (members, set.quorum, goodUntil);
    }

    /*//////////////////////////////////////////////////////////////
                            MONEY AND TERMS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarketAccounts
    function token() external view returns (IERC20) {
        return _token;
    }

    /// @inheritdoc IComputeMarketAccounts
    function holdings()
        external
        view
        returns (uint128 escrow, uint128 credit, uint128 stake, uint128 owed, uint128 insurance)
    {
        Holdings storage all = _holdings;
        return (all.escrow, all.credit, all.stake, all.owed, all.insurance);
    }

    /// @inheritdoc IComputeMarketAccounts
    function owedTo(address account) external view returns (uint128) {
        return _owedTo[account];
    }

    /// @inheritdoc IComputeMarketAccounts
    function terms() external view returns (Terms memory) {
        return _terms;
    }

    /// @inheritdoc IComputeMarketAccounts
    function pausedUntil() external view returns (uint64 newJobs, uint64 settlement) {
        return (_pauses.newJobsUntil, _pauses.settlementUntil);
    }

    /// @inheritdoc IComputeMarketAccounts
    function registry() external view returns (address) {
        return _registry;
    }

    /// @inheritdoc IComputeMarketAccounts
    function court() external view returns (address) {
        return _court;
    }

    /// @inheritdoc IComputeMarketAccounts
    function coordinator() external view returns (address) {
        return _coordinator;
    }

    /// @inheritdoc IComputeMarketAccounts
    function guardian() external view returns (address) {
        return _guardian;
    }
}
