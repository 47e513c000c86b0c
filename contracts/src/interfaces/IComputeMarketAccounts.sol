// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IComputeMarketErrors} from "./IComputeMarketErrors.sol";
import {IComputeMarketEvents} from "./IComputeMarketEvents.sol";
import {IComputeMarketTypes} from "./IComputeMarketTypes.sol";

/// @title Compute market: operators, credit, court, terms and views
/// @notice What the market's second contract does: all but jobs and settlement.
/// @dev See {IComputeMarket}.
interface IComputeMarketAccounts is IComputeMarketTypes, IComputeMarketEvents, IComputeMarketErrors {
    /*//////////////////////////////////////////////////////////////
                         OPERATORS AND NODES
    //////////////////////////////////////////////////////////////*/

    /// @notice Adds a node of the caller, and `stakeAmount` to the caller's stake.
    /// @param hotKey Key of the node; belongs to no other node.
    /// @param expiresAt End of the delegation, in the future.
    /// @param stakeAmount Amount pulled from the caller; may be 0 if its stake covers one more node.
    /// @param possession The hot key's signature of Delegation(caller, hotKey, expiresAt, delegationNonce(hotKey)),
    /// so that nobody registers a key that is not theirs.
    /// @return nodeId Id of the node; ids start at 1 and are never used again.
    function registerNode(address hotKey, uint64 expiresAt, uint128 stakeAmount, bytes calldata possession)
        external
        returns (uint32 nodeId);

    /// @notice Renews a node's hot key, or replaces it. Both sign
    /// Delegation(operator, hotKey, expiresAt, delegationNonce(hotKey)).
    /// @dev Anyone may bring a renewal. A delegation names no node, so a new key, which could be put on any node
    /// of the operator, is accepted from the operator's wallet only. Receipts of a replaced key settle for a
    /// grace period more. On a retired node the key ends no later than `unbondingTime` after retirement.
    /// @param operatorSignature The operator's (ECDSA, or ERC-1271 if the wallet is a contract).
    /// @param possession The hot key's.
    function delegateHotKey(
        uint32 nodeId,
        address hotKey,
        uint64 expiresAt,
        bytes calldata operatorSignature,
        bytes calldata possession
    ) external;

    /// @notice Retires a node: it takes no more seats, and the stake that it bound can be unbonded. Its receipts
    /// settle for `unbondingTime` more: as long as its stake may still be within reach. Credit stays for ever.
    function retireNode(uint32 nodeId) external;

    /// @notice Adds `amount` to the caller's stake.
    function addStake(uint128 amount) external;

    /// @notice Adds `amount` to the payer's stake. The authorization's nonce is
    /// keccak256(abi.encode("addStake", amount, salt)).
    function addStakeWithAuthorization(uint128 amount, Authorization calldata authorization) external;

    /// @notice Starts to unbond `amount` of the caller's stake that no active node binds. What is unbonding
    /// already waits with it: `unbondingTime` from now for all.
    function requestUnstake(uint128 amount) external;

    /// @notice Pays the caller what it has unbonded, less what must stay to cover its `advance`.
    function unstake() external;

    /// @notice Cancels all bids of a node with a nonce below `minNonce`. Seats that were taken stay.
    function cancelBids(uint32 nodeId, uint64 minNonce) external;

    /*//////////////////////////////////////////////////////////////
                              SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @notice Frees the credit of one receipt of an accepted round, before its window is over. Anyone may.
    /// @param batches The round's batches, in order.
    /// @param index Which of them holds the receipt.
    /// @param receipts The packed receipts of that batch.
    /// @param qualities The paid qualities of that batch.
    /// @param position Which of the receipts it is.
    function releaseAccepted(
        uint256 jobId,
        uint64 round,
        SettledBatch[] calldata batches,
        uint256 index,
        bytes calldata receipts,
        bytes calldata qualities,
        uint256 position
    ) external;

    /*//////////////////////////////////////////////////////////////
                                CREDIT
    //////////////////////////////////////////////////////////////*/

    /// @notice Pays `amount` of a node's withdrawable credit to `to`. The node's operator only.
    function withdraw(uint32 nodeId, uint128 amount, address to) external;

    /// @notice As `withdraw`, on the word of the operator's wallet (ECDSA or ERC-1271) and at anyone's gas.
    function withdrawWithSignature(Withdrawal calldata withdrawal, bytes calldata signature) external;

    /// @notice Pays each node's withdrawable credit to its operator's wallet. Anyone may send it; nodes without
    /// credit are passed over.
    function distributePayments(uint32[] calldata nodeIds) external;

    /// @notice Marks how much each node has earned until now. `challengeWindow` later all of it is free: nothing
    /// that was settled before the mark can be disputed any more. `withdraw` does so too; anyone may, at any time.
    function markCredit(uint32[] calldata nodeIds) external;

    /*//////////////////////////////////////////////////////////////
                      ATTESTORS, COURT, TIMELOCK
    //////////////////////////////////////////////////////////////*/

    /// @notice Begins an epoch with these attestors. The attestor registry only. The set before stays good for a
    /// grace period, so that what it has attested can be settled.
    /// @param members 1 to 16 signing addresses.
    /// @param quorum How many must open: more than half.
    /// @return epoch Its number; epochs start at 1.
    function beginEpoch(address[] calldata members, uint8 quorum) external returns (uint32 epoch);

    /// @notice Takes what a proven fault costs: from the node's credit, then from its operator's stake, then from
    /// what is unbonding; what then lacks of the restitution, from the insurance pool, of which one
    /// case gets a tenth at most. The restitution is at most what the node's seat in the job could be paid for one
    /// receipt. The court only.
    function penalize(Penalty calldata fault) external;

    /// @notice Holds `amount` of a node's credit for a dispute: until `disputeTime` from now, or until it is freed,
    /// that much less can be withdrawn, even if it is free or accepted otherwise. What is held for other disputes is
    /// held as long. A court that is replaced holds nothing. The court only.
    function holdCredit(uint32 nodeId, uint128 amount) external;

    /// @notice Ends the hold of `amount`, no more than is held. The court only.
    function freeCredit(uint32 nodeId, uint128 amount) external;

    /// @notice Pays a node what a dispute found it is owed: for units at quality `to` instead of `from`, within the
    /// escrow that is left. The court only.
    /// @return paid Amount credited.
    function award(
        uint256 caseId,
        uint256 jobId,
        uint64 round,
        uint32 nodeId,
        uint64 units,
        uint16 from,
        uint16 to
    ) external returns (uint128 paid);

    /// @notice Holds a seat's record of `round` for a dispute. The court only.
    /// @return units Units of the recorded receipt.
    function holdRecord(uint256 jobId, uint64 round, uint32 nodeId) external returns (uint64 units);

    /// @notice Ends a held record and frees its reservation; does nothing if it has lapsed. The court only.
    function dropRecord(uint256 jobId, uint32 nodeId) external;

    /// @notice Says once, after deployment, where registry and court are, and who coordinates. The deployer only.
    function connect(address registry, address court, address coordinator) external;

    /// @notice Replaces registry or court. The timelock only.
    function setPeriphery(address registry, address court) external;

    /// @notice Names who may seat nodes in every job. The timelock only.
    function setCoordinator(address coordinator) external;

    /// @notice Changes the terms, within the bounds. The timelock only.
    function setTerms(Terms calldata terms) external;

    /// @notice Names who may pause. The timelock only.
    function setGuardian(address guardian) external;

    /// @notice Stops new jobs, or settlement, or both, until `pauseLimit` later at the most; it ends by itself, and
    /// the same pause cannot be begun again before as much time has passed. The guardian only. Nothing that pays
    /// out credit, stake or refunds is ever stopped.
    function pause(bool newJobs, bool settlement) external;

    /// @notice Ends both pauses early. The guardian or the timelock.
    function unpause() external;

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    function getOperator(address operator) external view returns (Operator memory);

    /// @notice Ids of an operator's nodes, retired ones too, in the order of registration.
    function getOperatorNodes(address operator) external view returns (uint32[] memory);

    function getNode(uint32 nodeId) external view returns (Node memory);

    function getNodeMetrics(uint32 nodeId) external view returns (NodeMetrics memory);

    /// @notice The sum over the operator's nodes.
    function getOperatorMetrics(address operator) external view returns (NodeMetrics memory);

    /// @notice The current epoch, its attestors and how many of them must open.
    function getAttestors() external view returns (uint32 epoch, address[] memory members, uint8 quorum);

    /// @notice The attestors of an epoch; `goodUntil` is when its signatures cease to count, 0 while it is current.
    function getEpoch(uint32 epoch)
        external
        view
        returns (address[] memory members, uint8 quorum, uint64 goodUntil);

    function terms() external view returns (Terms memory);

    /// @notice Amounts that the market holds, by what they are for; their sum is its token balance.
    function holdings()
        external
        view
        returns (uint128 escrow, uint128 credit, uint128 stake, uint128 owed, uint128 insurance);

    /// @notice What `collect` would pay the account.
    function owedTo(address account) external view returns (uint128);

    /// @notice When each pause ends; in the past if there is none.
    function pausedUntil() external view returns (uint64 newJobs, uint64 settlement);

    /// @notice The node whose hot key this is; 0 if none.
    function nodeOfKey(address hotKey) external view returns (uint32 nodeId);

    /// @notice Until when receipts by this key of the node settle: a grace period after its delegation's end, or
    /// after it was replaced; 0 if it never was a key of the node.
    function keyGoodUntil(uint32 nodeId, address hotKey) external view returns (uint64);

    /// @notice How often this hot key has been delegated: the nonce of its next delegation.
    function delegationNonce(address hotKey) external view returns (uint64);

    /// @notice Nonce of a node's next `Withdrawal`.
    function withdrawalNonce(uint32 nodeId) external view returns (uint64);

    /// @notice Lowest nonce of a node's bid that is still good.
    function bidNonce(uint32 nodeId) external view returns (uint64);

    /// @notice Nodes ever registered: the highest node id.
    function nodeCount() external view returns (uint32);

    /// @notice Token of stakes, escrow and pay.
    function token() external view returns (IERC20);

    function registry() external view returns (address);

    function court() external view returns (address);

    /// @notice Who, besides a job's requester, may consent to the seating of nodes.
    function coordinator() external view returns (address);

    function guardian() external view returns (address);
}
