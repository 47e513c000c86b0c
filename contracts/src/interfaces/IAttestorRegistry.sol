// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarket} from "./IComputeMarket.sol";
import {IPullPayments} from "./IPullPayments.sol";

/// @title Attestor registry
/// @notice Bonded attestors: who may vouch for the quality of work, and what they stand to lose. Each epoch the
/// registry draws the set that the market's settlements must be signed by. Admission is by the timelock;
/// everything afterwards (bonding, leaving, drawing, slashing by the court) is by rule.
/// @dev EIP-712 domain: name "HyperGPU Attestors", version "1". Amounts are in the market token's base units, times
/// in seconds. The token balance is the sum of bonds, what is owed, and the insurance.
interface IAttestorRegistry is IPullPayments {
    /// @param minBond Bond from which an attestor is drawn, base units.
    /// @param epochLength Seconds that a set serves, while all of its members can; also how long the first proven
    /// fault keeps an attestor out.
    /// @param leaveTime Seconds for which a leaving attestor's bond stays within reach; at least the market's
    /// `challengeWindow + disputeTime`.
    /// @param setSize Most members of a set, 1 to 16.
    struct RegistryTerms {
        uint128 minBond;
        uint64 epochLength;
        uint64 leaveTime;
        uint8 setSize;
    }

    /// @param owner Wallet that bonded, and that the bond goes back to.
    /// @param signer Key of the attestor's worker; signs commitments and attestations, holds no money. It stays
    /// this attestor's for ever: to change it, leave and join anew.
    /// @param bond Bonded amount.
    /// @param leavingAt Earliest time at which the bond can be taken out; 0 while the attestor serves.
    /// @param jailedUntil Until then it is not drawn; set by a proven fault, `epochLength` times the faults so far.
    /// @param faults Faults that the court has proven.
    /// @param lastEpoch Last epoch that it was drawn for; 0 if none.
    struct Attestor {
        address owner;
        address signer;
        uint128 bond;
        uint64 leavingAt;
        uint64 jailedUntil;
        uint32 faults;
        uint32 lastEpoch;
    }

    /*//////////////////////////////////////////////////////////////
                                EVENTS
    //////////////////////////////////////////////////////////////*/

    /// @notice Emitted when the timelock lets a signer join, or no longer.
    event AttestorAdmitted(address indexed signer, bool admitted);

    /// @notice Emitted when an attestor joins with its first bond.
    event AttestorJoined(
        uint32 indexed attestorId, address indexed owner, address indexed signer, uint128 bond
    );

    /// @notice Emitted when `amount` is added to a bond, which is then `bond`.
    event BondAdded(uint32 indexed attestorId, uint128 amount, uint128 bond);

    /// @notice Emitted when an attestor starts to leave.
    event AttestorLeaving(uint32 indexed attestorId, uint64 availableAt);

    /// @notice Emitted when the bond of an attestor that left is paid out.
    event BondWithdrawn(uint32 indexed attestorId, address indexed to, uint128 amount);

    /// @notice `amount` is what was taken; `costs` of it went to `challenger`, half of the rest to `injured`, and
    /// what is left to the insurance of the registry.
    event AttestorSlashed(
        uint32 indexed attestorId,
        uint256 indexed caseId,
        uint128 amount,
        address injured,
        address challenger,
        uint128 costs
    );

    /// @notice Emitted when the draw of the next set was scheduled: `beginEpoch` once more after that block.
    event EpochScheduled(uint64 drawBlock);

    /// @notice `attestorIds[i]` is member `i` of the epoch's set.
    event EpochBegun(uint32 indexed epoch, uint32[] attestorIds, address[] members, uint8 quorum);

    /// @notice Emitted when somebody adds to the insurance: the court, the bonds that were lost before it.
    event InsuranceAdded(address indexed from, uint128 amount);

    /// @notice Emitted when the timelock makes somebody whole out of the insurance.
    event InsurancePaid(address indexed to, uint128 amount);

    /*//////////////////////////////////////////////////////////////
                                ERRORS
    //////////////////////////////////////////////////////////////*/

    /// @notice A term is outside the bounds that the code, or the market's terms, set for it.
    error TermOutOfBounds(uint256 value, uint256 min, uint256 max);

    /// @notice Only `allowed` may do this.
    error Unauthorized(address caller, address allowed);

    /// @notice The timelock has not admitted the signer.
    error NotAdmitted(address signer);

    /// @notice The signer is an attestor's, or was.
    error SignerTaken(address signer, uint32 attestorId);

    /// @notice The signer did not sign its possession (zero: nobody did).
    error InvalidPossession(address signer, address recovered);

    /// @notice No attestor has this id.
    error UnknownAttestor(uint32 attestorId);

    /// @notice So many attestors serve already.
    error TooManyAttestors(uint256 max);

    /// @notice The bond would be below the least.
    error BondTooSmall(uint128 bond, uint128 minBond);

    /// @notice The attestor is on its way out, or gone.
    error AttestorIsLeaving(uint32 attestorId, uint64 availableAt);

    /// @notice The attestor has not said that it leaves.
    error AttestorIsServing(uint32 attestorId);

    /// @notice The attestor is in the current set: begin an epoch without it first.
    error StillInSet(uint32 attestorId, uint32 epoch);

    /// @notice The time for this has not come.
    error TooEarly(uint64 availableAt);

    /// @notice The current set can serve until then.
    error EpochNotOver(uint32 epoch, uint64 endsAt);

    /// @notice The block that draws the set is not there yet.
    error DrawNotReady(uint64 drawBlock);

    /// @notice Only so many attestors can serve, fewer than the least set: the current one stays.
    error TooFewEligible(uint256 eligible, uint256 least);

    /// @notice The attestor's bond was taken out already.
    error NoBond(uint32 attestorId);

    /// @notice The insurance holds less than that.
    error InsufficientInsurance(uint128 amount, uint128 insurance);

    /*//////////////////////////////////////////////////////////////
                         JOINING AND LEAVING
    //////////////////////////////////////////////////////////////*/

    /// @notice Lets a signer join, or no longer. The timelock only. One that has joined stays until it leaves.
    function admit(address signer, bool admitted) external;

    /// @notice Joins with the caller's bond.
    /// @param signer Admitted, and never an attestor's before.
    /// @param bond Amount pulled from the caller, at least `minBond`.
    /// @param possession The signer's signature of AttestorKey(owner, signer) in the registry's domain.
    /// @return attestorId Ids start at 1 and are never used again.
    function join(address signer, uint128 bond, bytes calldata possession)
        external
        returns (uint32 attestorId);

    /// @notice Adds `amount` of the caller's to the bond of an attestor that serves. Anyone may.
    function addBond(uint32 attestorId, uint128 amount) external;

    /// @notice Starts to leave: not drawn any more; the bond stays within the court's reach for `leaveTime`. The
    /// owner only. From the current set the attestor goes with the next epoch, which its leaving lets anyone begin.
    function requestLeave(uint32 attestorId) external;

    /// @notice Pays the owner the bond, `leaveTime` after the attestor left and after the last signature that it
    /// could give ceased to count. The owner only. As long as the market's current set has no successor, its members'
    /// signatures count, and their bonds stay.
    function withdrawBond(uint32 attestorId) external;

    /*//////////////////////////////////////////////////////////////
                                EPOCHS
    //////////////////////////////////////////////////////////////*/

    /// @notice Begins the next epoch, once the current one is `epochLength` old, or as soon as one of its members can
    /// no longer serve. Anyone may. Draws `setSize` of those that can serve (all, if fewer), without replacement. With
    /// fewer than three (or `setSize`, if that is less) none begins, not even the first: two who wait until all
    /// others are gone must not become the set. The current one stays, and its members' bonds with it.
    /// @dev When not all can be in the set, a first call schedules the draw for the hash of a block to come, and a
    /// second, within 256 blocks, draws: see {Draw}. With nobody to leave out the first call begins the epoch.
    /// @return epoch The epoch that began; 0 if the draw was scheduled, first or anew.
    function beginEpoch() external returns (uint32 epoch);

    /*//////////////////////////////////////////////////////////////
                        SLASHING AND INSURANCE
    //////////////////////////////////////////////////////////////*/

    /// @notice Takes `amount` of an attestor's bond, or what there is, and jails it. The market's court only.
    /// @param injured Gets half of what is left after costs; nobody (zero) leaves it to the insurance.
    /// @param challenger Gets `costs`, at most a quarter of what was taken.
    /// @return taken What there was, at most `amount`.
    function slash(
        uint32 attestorId,
        uint256 caseId,
        uint128 amount,
        address injured,
        address challenger,
        uint128 costs
    ) external returns (uint128 taken);

    /// @notice Adds `amount` of the caller's to the insurance. Anyone may; the court brings lost bonds here.
    function addInsurance(uint128 amount) external;

    /// @notice Owes `amount` of the insurance to somebody whom slashing could not make whole. The timelock only.
    function payInsurance(address to, uint128 amount) external;

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    function getAttestor(uint32 attestorId) external view returns (Attestor memory);

    /// @notice The attestor whose signer this is or was; 0 if none.
    function attestorOf(address signer) external view returns (uint32 attestorId);

    /// @notice Whether the signer may join.
    function isAdmitted(address signer) external view returns (bool);

    /// @notice Attestors that ever joined: the highest id.
    function attestorCount() external view returns (uint32);

    /// @notice Member `member` of the set of `epoch`; 0 if this registry drew no such member.
    function memberOf(uint32 epoch, uint8 member) external view returns (uint32 attestorId);

    /// @notice The current epoch, 0 before the first; when it began; and the block that draws the next, 0 while
    /// that is not scheduled.
    function currentEpoch() external view returns (uint32 epoch, uint64 begunAt, uint64 drawBlock);

    /// @notice Ids of all that can serve now: bonded enough, not leaving, not jailed.
    function eligible() external view returns (uint32[] memory);

    /// @notice What the registry owes nobody: slashed, or lost before
    /// the court, and kept for those that slashing could not make whole.
    function insurance() external view returns (uint128);

    function terms() external view returns (RegistryTerms memory);

    function market() external view returns (IComputeMarket);
}
