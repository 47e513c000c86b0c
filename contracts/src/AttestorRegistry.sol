// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {PullPayments} from "./dispute/PullPayments.sol";
import {IAttestorRegistry} from "./interfaces/IAttestorRegistry.sol";
import {IComputeMarket} from "./interfaces/IComputeMarket.sol";
import {Draw} from "./libraries/Draw.sol";

/// @title Attestor registry
/// @notice See {IAttestorRegistry}. The owner is the timelock: it admits signers and pays out insurance; bonds,
/// draws and slashing are out of its reach.
contract AttestorRegistry is IAttestorRegistry, PullPayments, EIP712, Ownable2Step {
    using SafeERC20 for IERC20;

    bytes32 private constant ATTESTOR_KEY_TYPEHASH = keccak256("AttestorKey(address owner,address signer)");
    uint256 private constant MAX_SET = 16;
    /// @dev Fewer could agree among themselves, or stop everything alone.
    uint256 private constant MIN_SET = 3;
    /// @dev Bounds the loops over all that serve.
    uint256 private constant MAX_SERVING = 128;
    uint64 private constant MAX_DURATION = 365 days;

    /// @inheritdoc IAttestorRegistry
    IComputeMarket public immutable market;

    RegistryTerms private _terms;
    mapping(uint32 attestorId => Attestor) private _attestors;
    mapping(uint32 epoch => uint32[]) private _sets;
    /// @dev Ids of those that have joined and not left, in no order.
    uint32[] private _serving;
    uint32 private _epoch;
    uint64 private _begunAt;
    uint64 private _drawBlock;

    /// @inheritdoc IAttestorRegistry
    mapping(address signer => uint32) public attestorOf;
    /// @inheritdoc IAttestorRegistry
    mapping(address signer => bool) public isAdmitted;
    /// @inheritdoc IAttestorRegistry
    uint32 public attestorCount;
    /// @inheritdoc IAttestorRegistry
    uint128 public insurance;

    /// @param market_ Whose settlements the sets sign, whose court may slash, and whose token is bonded.
    /// @param timelock Owner.
    /// @param terms_ Fixed for good; other terms are another registry.
    /// @param admitted Signers that may join at once.
    constructor(
        IComputeMarket market_,
        address timelock,
        RegistryTerms memory terms_,
        address[] memory admitted
    ) PullPayments(market_.token()) EIP712("HyperGPU Attestors", "1") Ownable(timelock) {
        IComputeMarket.Terms memory marketTerms = market_.terms();
        _requireWithin(terms_.minBond, 1, type(uint128).max);
        _requireWithin(terms_.epochLength, 1, MAX_DURATION);
        _requireWithin(terms_.leaveTime, marketTerms.challengeWindow + marketTerms.disputeTime, MAX_DURATION);
        _requireWithin(terms_.setSize, 1, MAX_SET);
        market = market_;
        _terms = terms_;
        for (uint256 i = 0; i < admitted.length; ++i) {
            _admit(admitted[i], true);
        }
    }

    /*//////////////////////////////////////////////////////////////
                         JOINING AND LEAVING
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IAttestorRegistry
    function admit(address signer, bool admitted) external onlyOwner {
        _admit(signer, admitted);
    }

    /// @inheritdoc IAttestorRegistry
    function join(address signer, uint128 bond, bytes calldata possession)
        external
        nonReentrant
        returns (uint32 attestorId)
    {
        if (!isAdmitted[signer]) revert NotAdmitted(signer);
        if (attestorOf[signer] != 0) revert SignerTaken(signer, attestorOf[signer]);
        if (_serving.length == MAX_SERVING) revert TooManyAttestors(MAX_SERVING);
        _requireBond(bond);
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(ATTESTOR_KEY_TYPEHASH, msg.sender, signer)));
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, possession);
        if (recovered != signer) revert InvalidPossession(signer, recovered);

        attestorId = ++attestorCount;
        attestorOf[signer] = attestorId;
        Attestor storage attestor = _attestors[attestorId];
        attestor.owner = msg.sender;
        attestor.signer = signer;
        attestor.bond = bond;
        _serving.push(attestorId);
        emit AttestorJoined(attestorId, msg.sender, signer, bond);
        _pull(bond);
    }

    /// @inheritdoc IAttestorRegistry
    function addBond(uint32 attestorId, uint128 amount) external nonReentrant {
        Attestor storage attestor = _staying(attestorId);
        attestor.bond += amount;
        emit BondAdded(attestorId, amount, attestor.bond);
        _pull(amount);
    }

    /// @inheritdoc IAttestorRegistry
    function requestLeave(uint32 attestorId) external {
        Attestor storage attestor = _staying(attestorId);
        _requireCaller(attestor.owner);
        attestor.leavingAt = uint64(block.timestamp) + _terms.leaveTime;
        uint256 last = _serving.length - 1;
        for (uint256 i = 0; i <= last; ++i) {
            if (_serving[i] == attestorId) {
                _serving[i] = _serving[last];
                break;
            }
        }
        _serving.pop();
        emit AttestorLeaving(attestorId, attestor.leavingAt);
    }

    /// @inheritdoc IAttestorRegistry
    function withdrawBond(uint32 attestorId) external nonReentrant {
        Attestor storage attestor = _existing(attestorId);
        _requireCaller(attestor.owner);
        if (attestor.leavingAt == 0) revert AttestorIsServing(attestorId);
        _requireReached(attestor.leavingAt);
        if (attestor.lastEpoch != 0) {
            (,, uint64 goodUntil) = market.getEpoch(attestor.lastEpoch);
            if (goodUntil == 0) revert StillInSet(attestorId, attestor.lastEpoch);
            _requireReached(goodUntil + _terms.leaveTime);
        }
        uint128 amount = attestor.bond;
        if (amount == 0) revert NoBond(attestorId);
        attestor.bond = 0;
        emit BondWithdrawn(attestorId, msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /*//////////////////////////////////////////////////////////////
                                EPOCHS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IAttestorRegistry
    function beginEpoch() external nonReentrant returns (uint32 epoch) {
        uint64 endsAt = _begunAt + _terms.epochLength;
        if (_epoch != 0 && block.timestamp < endsAt && _canAllServe(_sets[_epoch])) {
            revert EpochNotOver(_epoch, endsAt);
        }
        uint32[] memory ids = eligible();
        uint256 least = Math.min(_terms.setSize, MIN_SET);
        if (ids.length < least) revert TooFewEligible(ids.length, least);
        if (ids.length > _terms.setSize) {
            bytes32 seed = _drawSeed();
            if (seed == 0) return 0;
            ids = Draw.choose(ids, _terms.setSize, seed);
        }
        return _begin(ids);
    }

    /*//////////////////////////////////////////////////////////////
                        SLASHING AND INSURANCE
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IAttestorRegistry
    function slash(
        uint32 attestorId,
        uint256 caseId,
        uint128 amount,
        address injured,
        address challenger,
        uint128 costs
    ) external nonReentrant returns (uint128 taken) {
        _requireCaller(market.court());
        Attestor storage attestor = _existing(attestorId);
        taken = uint128(Math.min(amount, attestor.bond));
        costs = challenger == address(0) ? 0 : uint128(Math.min(costs, taken / 4));
        uint128 restitution = injured == address(0) ? 0 : (taken - costs) / 2;

        attestor.bond -= taken;
        attestor.faults += 1;
        // Fits: 32 bits of faults, 25 bits of seconds.
        attestor.jailedUntil = uint64(block.timestamp) + attestor.faults * _terms.epochLength;
        insurance += taken - costs - restitution;
        if (costs != 0) _owe(challenger, costs);
        if (restitution != 0) _owe(injured, restitution);
        emit AttestorSlashed(attestorId, caseId, taken, injured, challenger, costs);
    }

    /// @inheritdoc IAttestorRegistry
    function addInsurance(uint128 amount) external nonReentrant {
        insurance += amount;
        emit InsuranceAdded(msg.sender, amount);
        _pull(amount);
    }

    /// @inheritdoc IAttestorRegistry
    function payInsurance(address to, uint128 amount) external onlyOwner {
        if (amount > insurance) revert InsufficientInsurance(amount, insurance);
        insurance -= amount;
        _owe(to, amount);
        emit InsurancePaid(to, amount);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IAttestorRegistry
    function getAttestor(uint32 attestorId) external view returns (Attestor memory) {
        return _existing(attestorId);
    }

    /// @inheritdoc IAttestorRegistry
    function memberOf(uint32 epoch, uint8 member) external view returns (uint32 attestorId) {
        if (member < _sets[epoch].length) attestorId = _sets[epoch][member];
    }

    /// @inheritdoc IAttestorRegistry
    function currentEpoch() external view returns (uint32 epoch, uint64 begunAt, uint64 drawBlock) {
        return (_epoch, _begunAt, _drawBlock);
    }

    /// @inheritdoc IAttestorRegistry
    function eligible() public view returns (uint32[] memory ids) {
        ids = new uint32[](_serving.length);
        uint256 count = 0;
        for (uint256 i = 0; i < ids.length; ++i) {
            if (_canServe(_serving[i])) ids[count++] = _serving[i];
        }
        assembly ("memory-safe") {
            mstore(ids, count)
        }
    }

    /// @inheritdoc IAttestorRegistry
    function terms() external view returns (RegistryTerms memory) {
        return _terms;
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _admit(address signer, bool admitted) private {
        isAdmitted[signer] = admitted;
        emit AttestorAdmitted(signer, admitted);
    }

    /// @dev Zero, and a draw scheduled, if there was none or its hash can be read no longer.
    function _drawSeed() private returns (bytes32 seed) {
        if (block.number <= _drawBlock) revert DrawNotReady(_drawBlock);
        seed = _drawBlock == 0 ? bytes32(0) : Draw.seedOf(_drawBlock);
        if (seed == 0) {
            _drawBlock = Draw.scheduled();
            emit EpochScheduled(_drawBlock);
        }
    }

    function _begin(uint32[] memory ids) private returns (uint32 epoch) {
        address[] memory members = new address[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            members[i] = _attestors[ids[i]].signer;
        }
        // Two thirds, rounded up: more than half for every size, and one in three may be away.
        uint8 quorum = uint8((2 * ids.length + 2) / 3);
        epoch = market.beginEpoch(members, quorum);

        _epoch = epoch;
        _begunAt = uint64(block.timestamp);
        _drawBlock = 0;
        _sets[epoch] = ids;
        for (uint256 i = 0; i < ids.length; ++i) {
            _attestors[ids[i]].lastEpoch = epoch;
        }
        emit EpochBegun(epoch, ids, members, quorum);
    }

    function _canAllServe(uint32[] storage ids) private view returns (bool) {
        for (uint256 i = 0; i < ids.length; ++i) {
            if (!_canServe(ids[i])) return false;
        }
        return true;
    }

    function _canServe(uint32 attestorId) private view returns (bool) {
        Attestor storage attestor = _attestors[attestorId];
        return
            attestor.leavingAt == 0 && attestor.bond >= _terms.minBond
                && block.timestamp >= attestor.jailedUntil;
    }

    function _existing(uint32 attestorId) private view returns (Attestor storage attestor) {
        attestor = _attestors[attestorId];
        if (attestor.owner == address(0)) revert UnknownAttestor(attestorId);
    }

    function _staying(uint32 attestorId) private view returns (Attestor storage attestor) {
        attestor = _existing(attestorId);
        if (attestor.leavingAt != 0) revert AttestorIsLeaving(attestorId, attestor.leavingAt);
    }

    function _requireBond(uint128 bond) private view {
        if (bond < _terms.minBond) revert BondTooSmall(bond, _terms.minBond);
    }

    function _requireCaller(address allowed) private view {
        if (msg.sender != allowed) revert Unauthorized(msg.sender, allowed);
    }

    function _requireReached(uint64 time) private view {
        if (block.timestamp < time) revert TooEarly(time);
    }

    function _requireWithin(uint256 value, uint256 min, uint256 max) private pure {
        if (value < min || value > max) revert TermOutOfBounds(value, min, max);
    }
}
