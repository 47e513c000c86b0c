// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IComputeMarketErrors} from "../interfaces/IComputeMarketErrors.sol";
import {IComputeMarketEvents} from "../interfaces/IComputeMarketEvents.sol";
import {MarketStorage} from "./MarketStorage.sol";

/// @title What all parts of the market share
/// @notice The signing domain, the token on its way in and out, the look-up of jobs, seats and nodes, and the clocks
/// of grace and notice, which a pause of settlement stops.
abstract contract MarketBase is
    MarketStorage,
    IComputeMarketEvents,
    IComputeMarketErrors,
    EIP712,
    Ownable,
    ReentrancyGuardTransient
{
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// @dev How long replaced and expired keys, and past attestor sets, stay good for settlement, so that nothing
    /// that happens after a batch was attested makes it invalid.
    uint64 internal constant SETTLEMENT_GRACE = 1 days;
    /// @dev All of it, in basis points.
    uint16 internal constant ONE = 10_000;

    uint64 private constant MIN_DURATION = 10 seconds;
    uint64 private constant MAX_DURATION = 365 days;
    uint128 private constant MAX_MIN_STAKE = type(uint96).max;

    IERC20 internal immutable _token;

    constructor(IERC20 token_, address owner_) EIP712("HyperGPU", "1") Ownable(owner_) {
        _requireNonZero(address(token_));
        _token = token_;
    }

    /*//////////////////////////////////////////////////////////////
                                 TOKEN
    //////////////////////////////////////////////////////////////*/

    /// @dev Takes `amount` from the caller, and refuses a token that moves more or less.
    function _pull(uint128 amount) internal {
        uint256 before = _token.balanceOf(address(this));
        _token.safeTransferFrom(msg.sender, address(this), amount);
        _requireReceived(before, amount);
    }

    /// @dev Takes `amount` from the payer on its signature; `purpose` says what for, and is the nonce.
    function _pullAuthorized(uint128 amount, bytes32 purpose, Authorization calldata authorization) internal {
        (uint8 v, bytes32 r, bytes32 s) = ECDSA.parseCalldata(authorization.signature);
        uint256 before = _token.balanceOf(address(this));
        IERC3009(address(_token))
            .receiveWithAuthorization(
                authorization.from,
                address(this),
                amount,
                authorization.validAfter,
                authorization.validBefore,
                purpose,
                v,
                r,
                s
            );
        _requireReceived(before, amount);
    }

    function _push(address to, uint128 amount) internal {
        _token.safeTransfer(to, amount);
    }

    function _requireReceived(uint256 before, uint128 amount) private view {
        uint256 received = _token.balanceOf(address(this)) - before;
        if (received != amount) revert IncorrectDeposit(amount, received);
    }

    /*//////////////////////////////////////////////////////////////
                                LOOK-UP
    //////////////////////////////////////////////////////////////*/

    function _profile(uint32 nodeId) internal view returns (NodeProfile storage profile) {
        profile = _profiles[nodeId];
        if (profile.operator == address(0)) revert UnknownNode(nodeId);
    }

    function _seat(uint256 jobId, uint32 nodeId) internal view returns (Seat storage seat) {
        if (nodeId >= MAX_NODES) revert UnknownNode(nodeId);
        seat = _seats[jobId][nodeId];
        if (seat.capacity == 0) revert NotSeated(jobId, nodeId);
    }

    function _existingJob(uint256 jobId) internal view returns (Job storage job) {
        job = _jobs[jobId].job;
        if (job.escrow == 0) revert UnknownJob(jobId);
    }

    function _openJob(uint256 jobId) internal view returns (Job storage job) {
        job = _existingJob(jobId);
        if (job.closed) revert JobIsClosed(jobId);
    }

    /*//////////////////////////////////////////////////////////////
                           PAY AND RECORDS
    //////////////////////////////////////////////////////////////*/

    function _requireCapacity(uint48 capacity, uint32 nodeId, uint64 units) internal pure {
        if (units > capacity) revert UnitsAboveCapacity(nodeId, units, capacity);
    }

    /// @dev Cannot overflow: 64 + 96 + 14 bits.
    function _reward(uint96 rate, uint64 units, uint256 quality) internal pure returns (uint256) {
        return uint256(units) * rate * quality / ONE;
    }

    /// @dev Reverts above 128 bits, which no escrow holds.
    function _reservation(uint64 units, uint96 rate) internal pure returns (uint128) {
        return (uint256(units) * rate).toUint128();
    }

    function _recordedRound(uint256 jobId, Seat storage seat, uint32 nodeId) internal view returns (uint64) {
        if (seat.recordedRound == 0) revert NoRecord(jobId, 0, nodeId);
        return seat.recordedRound - 1;
    }

    function _endRecord(Job storage job, Seat storage seat) internal {
        job.reserved -= _reservation(seat.recordedUnits, seat.rate);
        job.records -= 1;
        seat.recordedUnits = 0;
        seat.recordedRound = 0;
        seat.claimed = false;
    }

    /*//////////////////////////////////////////////////////////////
                                 CLOCKS
    //////////////////////////////////////////////////////////////*/

    /// @dev Keys and attestor sets that ended after this are still good for settlement: `SETTLEMENT_GRACE` ago,
    /// not counting the last time in which settlement was paused. A pause before that one is further away.
    function _graceStart(Pauses memory pauses) internal view returns (uint64) {
        uint64 time = uint64(block.timestamp);
        uint64 sincePause = time > pauses.settlementUntil ? time - pauses.settlementUntil : 0;
        return sincePause < SETTLEMENT_GRACE
            ? pauses.settlementSince - (SETTLEMENT_GRACE - sincePause)
            : time - SETTLEMENT_GRACE;
    }

    /// @dev Seconds, until now, in which settlement was paused.
    function _pausedTime() internal view returns (uint64) {
        Pauses memory pauses = _pauses;
        uint256 end = Math.min(block.timestamp, pauses.settlementUntil);
        return pauses.settlementBefore + uint64(end) - pauses.settlementSince;
    }

    /// @dev When the requester may leave; 0 without notice. The time in which settlement is paused does not count.
    function _exitAvailableAt(uint256 jobId, Job storage job) internal view returns (uint64) {
        uint64 availableAt = job.exitAvailableAt;
        return availableAt == 0 ? 0 : availableAt + _pausedTime() - _pausedAtNotice[jobId];
    }

    function _requireReached(uint64 time) internal view {
        if (block.timestamp < time) revert TooEarly(time);
    }

    /*//////////////////////////////////////////////////////////////
                                 CHECKS
    //////////////////////////////////////////////////////////////*/

    function _requireWalletSignature(address wallet, bytes32 structHash, bytes calldata signature)
        internal
        view
    {
        if (!_hasSigned(wallet, _hashTypedDataV4(structHash), signature)) {
            revert InvalidWalletSignature(wallet);
        }
    }

    /// @dev An ordinary signature first: a wallet under EIP-7702 has code, and may yet sign with its key. The zero
    /// address, which is what no signature recovers to, has signed nothing.
    function _hasSigned(address wallet, bytes32 digest, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (signer != address(0) && signer == wallet) return true;
        return SignatureChecker.isValidERC1271SignatureNowCalldata(wallet, digest, signature);
    }

    function _requireNonZero(address account) internal pure {
        if (account == address(0)) revert ZeroAddress();
    }

    function _requirePositive(uint128 amount) internal pure {
        if (amount == 0) revert ZeroAmount();
    }

    /*//////////////////////////////////////////////////////////////
                                 TERMS
    //////////////////////////////////////////////////////////////*/

    function _setTerms(Terms memory terms_) internal {
        _requireWithin(terms_.minStake, 1, MAX_MIN_STAKE);
        _requireWithin(terms_.challengeWindow, MIN_DURATION, MAX_DURATION);
        _requireWithin(terms_.disputeTime, MIN_DURATION, MAX_DURATION);
        uint64 longestDispute = terms_.challengeWindow + terms_.disputeTime;
        _requireWithin(terms_.exitNotice, longestDispute, MAX_DURATION);
        _requireWithin(terms_.unbondingTime, longestDispute, MAX_DURATION);
        _requireWithin(terms_.instantShare, 0, ONE);
        emit TermsChanged(_terms, terms_);
        _terms = terms_;
    }

    function _setGuardian(address guardian_) internal {
        emit GuardianChanged(_guardian, guardian_);
        _guardian = guardian_;
    }

    function _requireWithin(uint256 value, uint256 min, uint256 max) private pure {
        if (value < min || value > max) revert TermOutOfBounds(value, min, max);
    }
}
