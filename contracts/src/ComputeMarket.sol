// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IComputeMarket} from "./interfaces/IComputeMarket.sol";
import {MessageHashes} from "./libraries/MessageHashes.sol";
import {PackedReceipts} from "./libraries/PackedReceipts.sol";

/// @title Compute market
/// @notice See {IComputeMarket}. The owner ("admin") can replace the attestors and nothing else: it cannot move,
/// hold back or redirect money. The code cannot be replaced.
/// @dev Nodes lie in one array, and a job's seats in another, by their dense ids: neighbours share pages of 128
/// storage slots, by which Monad prices storage (MIP-8).
contract ComputeMarket is IComputeMarket, EIP712, Ownable2Step, ReentrancyGuardTransient {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

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

    uint256 private constant MAX_NODES = 1 << 24;
    uint256 private constant MAX_ATTESTORS = 32;
    uint16 private constant QUALITY_ONE = 10_000;
    uint64 private constant MAX_DURATION = 365 days;

    /// @notice Token of stakes, escrow and pay.
    IERC20 public immutable token;
    /// @inheritdoc IComputeMarket
    uint128 public immutable minStake;
    /// @inheritdoc IComputeMarket
    uint64 public immutable exitNotice;
    /// @inheritdoc IComputeMarket
    uint64 public immutable unbondingTime;

    NodeState[MAX_NODES] private _nodes;
    mapping(uint256 jobId => Seat[MAX_NODES]) private _seats;
    mapping(uint256 jobId => Job) private _jobs;
    mapping(uint32 nodeId => NodeProfile) private _profiles;
    mapping(address operator => Operator) private _operators;

    /// @inheritdoc IComputeMarket
    mapping(address hotKey => uint32) public nodeOfKey;
    /// @inheritdoc IComputeMarket
    mapping(address hotKey => uint64) public delegationNonce;
    /// @inheritdoc IComputeMarket
    mapping(address account => bool) public isAttestor;

    address[] private _attestors;
    uint8 private _quorum;
    /// @inheritdoc IComputeMarket
    uint32 public nodeCount;
    /// @inheritdoc IComputeMarket
    uint256 public jobCount;

    /// @param token_ Token of stakes, escrow and pay; moves exactly what it is asked to.
    /// @param minStake_ Stake that each active node binds, base units.
    /// @param admin May replace the attestors.
    /// @param attestors First attestors.
    /// @param quorum How many of them must sign.
    /// @param exitNotice_ Seconds of notice before a requester may leave; longer than a round and its disputes.
    /// @param unbondingTime_ Seconds before unbonded stake is paid out; longer than disputes.
    constructor(
        IERC20 token_,
        uint128 minStake_,
        address admin,
        address[] memory attestors,
        uint8 quorum,
        uint64 exitNotice_,
        uint64 unbondingTime_
    ) EIP712("HyperGPU", "1") Ownable(admin) {
        _requireNonZero(address(token_));
        _requireDuration(exitNotice_);
        _requireDuration(unbondingTime_);
        token = token_;
        minStake = minStake_;
        exitNotice = exitNotice_;
        unbondingTime = unbondingTime_;
        _setAttestors(attestors, quorum);
    }

    /*//////////////////////////////////////////////////////////////
                          OPERATORS AND NODES
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
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IComputeMarket
    function cancelBids(uint32 nodeId, uint64 minNonce) external {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        if (minNonce <= profile.bidNonce) revert NonceNotHigher(nodeId, minNonce, profile.bidNonce);
        profile.bidNonce = minNonce;
        emit BidsCancelled(nodeId, minNonce);
    }

    /*//////////////////////////////////////////////////////////////
                                  JOBS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function createJob(bytes32 spec, uint128 escrow, uint128 maxRate)
        external
        nonReentrant
        returns (uint256 jobId)
    {
        _requirePositive(escrow);
        jobId = ++jobCount;
        Job storage job = _jobs[jobId];
        job.requester = msg.sender;
        job.spec = spec;
        job.escrow = escrow;
        job.maxRate = maxRate;
        emit JobCreated(jobId, msg.sender, spec, escrow, maxRate);
        _pull(escrow);
    }

    /// @inheritdoc IComputeMarket
    function fundJob(uint256 jobId, uint128 amount) external nonReentrant {
        _requirePositive(amount);
        Job storage job = _stayingJob(jobId);
        job.escrow += amount;
        emit JobFunded(jobId, msg.sender, amount, job.escrow);
        _pull(amount);
    }

    /// @inheritdoc IComputeMarket
    function takeBids(uint256 jobId, Bid[] calldata bids, bytes[] calldata signatures) external {
        if (bids.length != signatures.length) revert LengthMismatch(bids.length, signatures.length);
        uint128 maxRate = _stayingJob(jobId).maxRate;
        for (uint256 i = 0; i < bids.length; ++i) {
            _takeBid(jobId, maxRate, bids[i], signatures[i]);
        }
    }

    /// @inheritdoc IComputeMarket
    function closeJob(uint256 jobId, uint64 rounds, uint128 spent, bytes[] calldata attestations)
        external
        nonReentrant
    {
        Job storage job = _openJob(jobId);
        if (rounds != job.round || spent != job.spent || job.batch != 0) {
            revert ClosureMismatch(jobId, job.round, job.spent, job.batch);
        }
        _requireQuorum(MessageHashes.jobClosure(jobId, rounds, spent), attestations);
        _close(jobId, job);
    }

    /// @inheritdoc IComputeMarket
    function requestExit(uint256 jobId) external {
        Job storage job = _stayingJob(jobId);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        job.exitAvailableAt = uint64(block.timestamp) + exitNotice;
        emit JobExitRequested(jobId, job.exitAvailableAt);
    }

    /// @inheritdoc IComputeMarket
    function exitJob(uint256 jobId) external nonReentrant {
        Job storage job = _openJob(jobId);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        if (job.exitAvailableAt == 0) revert ExitNotRequested(jobId);
        _requireReached(job.exitAvailableAt);
        _close(jobId, job);
    }

    /*//////////////////////////////////////////////////////////////
                               SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function settleRound(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipts,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external {
        if (receipts.length % PackedReceipts.SIZE != 0) {
            revert InvalidReceiptsLength(receipts.length);
        }
        _settle(jobId, round, batch, last, base, receipts, evidence, attestations);
    }

    /// @inheritdoc IComputeMarket
    function submitContribution(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipt,
        bytes32 evidence,
        bytes[] calldata attestations
    ) external {
        if (receipt.length != PackedReceipts.SIZE) revert InvalidReceiptsLength(receipt.length);
        _settle(jobId, round, batch, last, base, receipt, evidence, attestations);
    }

    /// @inheritdoc IComputeMarket
    function calculateRewards(uint256 jobId, uint32 nodeId, uint64 units, uint16 quality)
        external
        view
        returns (uint256 amount)
    {
        _existingJob(jobId);
        return _reward(_seat(jobId, nodeId), nodeId, units, quality);
    }

    /*//////////////////////////////////////////////////////////////
                                 CREDIT
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function withdraw(uint32 nodeId, uint128 amount, address to) external nonReentrant {
        NodeProfile storage profile = _profileOfCaller(nodeId);
        _requirePositive(amount);
        _requireNonZero(to);
        if (to == address(this)) revert InvalidRecipient(to);
        uint128 credit = _nodes[nodeId].credit;
        if (amount > credit) revert InsufficientCredit(nodeId, amount, credit);
        _payOut(nodeId, profile, amount, to);
    }

    /// @inheritdoc IComputeMarket
    function distributePayments(uint32[] calldata nodeIds) external nonReentrant {
        for (uint256 i = 0; i < nodeIds.length; ++i) {
            NodeProfile storage profile = _profile(nodeIds[i]);
            uint128 credit = _nodes[nodeIds[i]].credit;
            if (credit != 0) _payOut(nodeIds[i], profile, credit, profile.operator);
        }
    }

    /*//////////////////////////////////////////////////////////////
                               ATTESTORS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function setAttestors(address[] calldata attestors, uint8 quorum) external onlyOwner {
        _setAttestors(attestors, quorum);
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
    function getNodeMetrics(uint32 nodeId) external view returns (NodeMetrics memory) {
        NodeProfile storage profile = _profile(nodeId);
        NodeState storage node = _nodes[nodeId];
        return NodeMetrics({
            rounds: node.rounds,
            units: node.units,
            qualitySum: node.qualitySum,
            lastSettledAt: node.lastSettledAt,
            credit: node.credit,
            earned: node.credit + profile.withdrawn
        });
    }

    /// @inheritdoc IComputeMarket
    function getJob(uint256 jobId) external view returns (Job memory) {
        return _existingJob(jobId);
    }

    /// @inheritdoc IComputeMarket
    function getSeat(uint256 jobId, uint32 nodeId) external view returns (Seat memory seat) {
        if (nodeId < MAX_NODES) seat = _seats[jobId][nodeId];
    }

    /// @inheritdoc IComputeMarket
    function getAttestors() external view returns (address[] memory attestors, uint8 quorum) {
        return (_attestors, _quorum);
    }

    /// @inheritdoc IComputeMarket
    function bidNonce(uint32 nodeId) external view returns (uint64) {
        return _profile(nodeId).bidNonce;
    }

    /*//////////////////////////////////////////////////////////////
                          INTERNAL: SETTLEMENT
    //////////////////////////////////////////////////////////////*/

    function _settle(
        uint256 jobId,
        uint64 round,
        uint32 batch,
        bool last,
        bytes32 base,
        bytes calldata receipts,
        bytes32 evidence,
        bytes[] calldata attestations
    ) private {
        Job storage job = _openJob(jobId);
        if (round != job.round || batch != job.batch) {
            revert UnexpectedBatch(jobId, round, batch, job.round, job.batch);
        }
        _requireQuorum(
            MessageHashes.roundAttestation(jobId, round, batch, last, base, keccak256(receipts), evidence),
            attestations
        );

        if (last) {
            job.round = round + 1;
            job.batch = 0;
        } else {
            job.batch = batch + 1;
        }
        uint128 total = _creditReceipts(jobId, round, base, receipts, job.escrow - job.spent);
        job.spent += total;
        // Fits: calldata holds fewer than 2^32 receipts.
        uint32 count = uint32(receipts.length / PackedReceipts.SIZE);
        emit RoundSettled(jobId, round, batch, last, base, count, total, evidence);
    }

    function _creditReceipts(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        bytes calldata receipts,
        uint128 available
    ) private returns (uint128 total) {
        uint256 count = receipts.length / PackedReceipts.SIZE;
        for (uint256 i = 0; i < count; ++i) {
            total += _creditReceipt(jobId, round, base, PackedReceipts.read(receipts, i), available - total);
        }
    }

    function _creditReceipt(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        PackedReceipts.PackedReceipt memory receipt,
        uint128 available
    ) private returns (uint128 amount) {
        uint32 nodeId = receipt.nodeId;
        Seat storage seat = _seat(jobId, nodeId);
        if (seat.paidRound > round) revert AlreadyPaid(jobId, round, nodeId);
        NodeState storage node = _nodes[nodeId];
        _requireReceiptSignature(jobId, round, base, receipt, node);

        uint256 owed = _reward(seat, nodeId, receipt.units, receipt.quality);
        if (owed > available) revert InsufficientEscrow(jobId, owed, available);
        amount = owed.toUint128();

        seat.paidRound = round + 1;
        _record(node, receipt, amount);
        emit ContributionSettled(
            jobId, round, nodeId, receipt.units, receipt.quality, amount, receipt.artifact
        );
    }

    /// @dev A full counter stays full rather than block a payment. A credit that would not fit 104 bits, a
    /// thousand trillion trillion units of a 6-decimals token, reverts.
    function _record(NodeState storage node, PackedReceipts.PackedReceipt memory receipt, uint128 amount)
        private
    {
        node.credit = (node.credit + uint256(amount)).toUint104();
        node.rounds = uint32(Math.min(uint256(node.rounds) + 1, type(uint32).max));
        node.units = uint64(Math.min(uint256(node.units) + receipt.units, type(uint64).max));
        node.qualitySum = uint48(Math.min(uint256(node.qualitySum) + receipt.quality, type(uint48).max));
        node.lastSettledAt = uint40(block.timestamp);
    }

    function _reward(Seat storage seat, uint32 nodeId, uint64 units, uint16 quality)
        private
        view
        returns (uint256)
    {
        if (units > seat.capacity) revert UnitsAboveCapacity(nodeId, units, seat.capacity);
        if (quality > QUALITY_ONE) revert QualityAboveMax(nodeId, quality);
        // Cannot overflow: 64 + 128 + 14 bits.
        return uint256(units) * seat.rate * quality / QUALITY_ONE;
    }

    function _requireReceiptSignature(
        uint256 jobId,
        uint64 round,
        bytes32 base,
        PackedReceipts.PackedReceipt memory receipt,
        NodeState storage node
    ) private view {
        uint64 expiresAt = node.expiresAt;
        if (block.timestamp >= expiresAt) revert HotKeyExpired(receipt.nodeId, expiresAt);
        bytes32 digest = _hashTypedDataV4(
            MessageHashes.receipt(jobId, round, receipt.nodeId, receipt.units, base, receipt.artifact)
        );
        // Zero if the signature is not valid, which no node's hot key is. Refuses a high `s` (EIP-2).
        (address signer,,) = ECDSA.tryRecover(digest, receipt.v, receipt.r, receipt.s);
        if (signer != node.hotKey) revert InvalidReceiptSignature(receipt.nodeId, signer);
    }

    function _requireQuorum(bytes32 structHash, bytes[] calldata attestations) private view {
        if (attestations.length < _quorum) revert QuorumNotReached(attestations.length, _quorum);
        bytes32 digest = _hashTypedDataV4(structHash);
        address previous = address(0);
        for (uint256 i = 0; i < attestations.length; ++i) {
            (address signer,,) = ECDSA.tryRecoverCalldata(digest, attestations[i]);
            if (!isAttestor[signer]) revert NotAttestor(signer);
            if (signer <= previous) revert AttestorsOutOfOrder(previous, signer);
            previous = signer;
        }
    }

    /*//////////////////////////////////////////////////////////////
                       INTERNAL: KEYS AND BIDS
    //////////////////////////////////////////////////////////////*/

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

    function _takeBid(uint256 jobId, uint128 maxRate, Bid calldata bid, bytes calldata signature) private {
        uint32 nodeId = bid.nodeId;
        NodeProfile storage profile = _profile(nodeId);
        if (profile.retiredAt != 0) revert NodeIsRetired(nodeId);
        if (bid.jobId != 0 && bid.jobId != jobId) revert BidForOtherJob(nodeId, bid.jobId);
        if (block.timestamp >= bid.expiresAt) revert BidExpired(nodeId, bid.expiresAt);
        if (bid.nonce < profile.bidNonce) revert BidCancelled(nodeId, bid.nonce, profile.bidNonce);
        if (bid.rate > maxRate) revert RateAboveMax(nodeId, bid.rate, maxRate);
        if (bid.capacity == 0) revert ZeroCapacity(nodeId);
        Seat storage seat = _seats[jobId][nodeId];
        if (seat.capacity != 0) revert AlreadySeated(jobId, nodeId);
        _requireWalletSignature(profile.operator, _hashTypedDataV4(MessageHashes.bid(bid)), signature);

        seat.rate = bid.rate;
        seat.capacity = bid.capacity;
        emit BidTaken(jobId, nodeId, bid.rate, bid.capacity);
    }

    /// @dev An ordinary signature first: a wallet under EIP-7702 has code, and may yet sign with its key.
    function _requireWalletSignature(address wallet, bytes32 digest, bytes calldata signature) private view {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (signer == wallet) return;
        if (!SignatureChecker.isValidERC1271SignatureNowCalldata(wallet, digest, signature)) {
            revert InvalidOperatorSignature(wallet);
        }
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

    /*//////////////////////////////////////////////////////////////
                            INTERNAL: MONEY
    //////////////////////////////////////////////////////////////*/

    function _close(uint256 jobId, Job storage job) private {
        job.closed = true;
        uint128 refund = job.escrow - job.spent;
        emit JobClosed(jobId, job.round, job.spent, refund);
        if (refund != 0) token.safeTransfer(job.requester, refund);
    }

    function _payOut(uint32 nodeId, NodeProfile storage profile, uint128 amount, address to) private {
        _nodes[nodeId].credit = (_nodes[nodeId].credit - uint256(amount)).toUint104();
        profile.withdrawn += amount;
        emit CreditWithdrawn(nodeId, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @dev Takes `amount` from the caller, and refuses a token that moves more or less.
    function _pull(uint128 amount) private {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert IncorrectDeposit(amount, received);
    }

    /*//////////////////////////////////////////////////////////////
                     INTERNAL: ATTESTORS, LOOK-UPS
    //////////////////////////////////////////////////////////////*/

    function _setAttestors(address[] memory attestors, uint8 quorum) private {
        if (quorum == 0 || quorum > attestors.length || attestors.length > MAX_ATTESTORS) {
            revert InvalidQuorum(attestors.length, quorum, MAX_ATTESTORS);
        }
        for (uint256 i = 0; i < _attestors.length; ++i) {
            isAttestor[_attestors[i]] = false;
        }
        for (uint256 i = 0; i < attestors.length; ++i) {
            _requireNonZero(attestors[i]);
            if (isAttestor[attestors[i]]) revert DuplicateAttestor(attestors[i]);
            isAttestor[attestors[i]] = true;
        }
        _attestors = attestors;
        _quorum = quorum;
        emit AttestorsChanged(attestors, quorum);
    }

    function _profile(uint32 nodeId) private view returns (NodeProfile storage profile) {
        profile = _profiles[nodeId];
        if (profile.operator == address(0)) revert UnknownNode(nodeId);
    }

    function _profileOfCaller(uint32 nodeId) private view returns (NodeProfile storage profile) {
        profile = _profile(nodeId);
        if (profile.operator != msg.sender) revert NotOperator(nodeId, msg.sender);
    }

    function _seat(uint256 jobId, uint32 nodeId) private view returns (Seat storage seat) {
        if (nodeId >= MAX_NODES) revert UnknownNode(nodeId);
        seat = _seats[jobId][nodeId];
        if (seat.capacity == 0) revert NotSeated(jobId, nodeId);
    }

    function _existingJob(uint256 jobId) private view returns (Job storage job) {
        job = _jobs[jobId];
        if (job.requester == address(0)) revert UnknownJob(jobId);
    }

    function _openJob(uint256 jobId) private view returns (Job storage job) {
        job = _existingJob(jobId);
        if (job.closed) revert JobIsClosed(jobId);
    }

    /// @dev An open job whose requester has not given notice.
    function _stayingJob(uint256 jobId) private view returns (Job storage job) {
        job = _openJob(jobId);
        if (job.exitAvailableAt != 0) revert JobIsExiting(jobId, job.exitAvailableAt);
    }

    function _requireNonZero(address account) private pure {
        if (account == address(0)) revert ZeroAddress();
    }

    function _requirePositive(uint128 amount) private pure {
        if (amount == 0) revert ZeroAmount();
    }

    function _requireReached(uint64 time) private view {
        if (block.timestamp < time) revert TooEarly(time);
    }

    function _requireDuration(uint64 duration) private pure {
        if (duration == 0 || duration > MAX_DURATION) revert InvalidDuration(duration, MAX_DURATION);
    }
}
