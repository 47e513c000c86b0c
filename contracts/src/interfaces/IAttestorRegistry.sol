// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// @title Attestor registry
/// @notice Bonded attestors: who may vouch for the quality of work, and what they stand to lose. Each epoch the
/// registry draws the set that the market's settlements must be signed by. Admission is by the timelock;
/// everything afterwards (bonding, leaving, drawing, slashing by the court) is by rule.
/// @dev Amounts are in the market token's base units, times in seconds.
interface IAttestorRegistry {
    /// @param owner Wallet that bonded, and that the bond goes back to.
    /// @param signer Key of the attestor's worker; signs commitments and attestations, holds no money.
    /// @param bond Bonded amount.
    /// @param leavingAt When the bond can be taken out; 0 while the attestor serves.
    /// @param jailedUntil Until then it is not drawn; set by a proven fault.
    /// @param faults Faults that the court has proven.
    struct Attestor {
        address owner;
        address signer;
        uint128 bond;
        uint64 leavingAt;
        uint64 jailedUntil;
        uint32 faults;
    }

    event AttestorAdmitted(address indexed signer, bool admitted);
    event AttestorJoined(uint32 indexed attestorId, address indexed owner, address indexed signer, uint128 bond);
    event BondAdded(uint32 indexed attestorId, uint128 amount, uint128 bond);
    event AttestorLeaving(uint32 indexed attestorId, uint64 availableAt);
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
    /// @notice `attestorIds[i]` is member `i` of the epoch's set.
    event EpochBegun(uint32 indexed epoch, uint32[] attestorIds, address[] members, uint8 quorum);

    /// @notice Lets a signer join, or no longer. The timelock only. One that has joined stays until it leaves.
    function admit(address signer, bool admitted) external;

    /// @notice Joins with the caller's bond. `possession` is the signer's signature of
    /// AttestorKey(owner, signer) in the registry's EIP-712 domain ("HyperGPU Attestors", "1").
    function join(address signer, uint128 bond, bytes calldata possession)
        external
        returns (uint32 attestorId);

    function addBond(uint32 attestorId, uint128 amount) external;

    /// @notice Starts to leave: not drawn any more; the bond stays within the court's reach for `leaveTime`.
    function leave(uint32 attestorId) external;

    function withdrawBond(uint32 attestorId) external;

    /// @notice Begins the next epoch, once the current one is `epochLength` old, or as soon as one of its members can
    /// no longer serve. Anyone may. Draws `setSize` of those that can serve (all, if fewer), without replacement.
    function beginEpoch() external returns (uint32 epoch);

    /// @notice Takes `amount` of an attestor's bond, or what there is, and jails it. The court only.
    function slash(
        uint32 attestorId,
        uint256 caseId,
        uint128 amount,
        address injured,
        address challenger,
        uint128 costs
    ) external returns (uint128 taken);

    function getAttestor(uint32 attestorId) external view returns (Attestor memory);

    function attestorOf(address signer) external view returns (uint32 attestorId);

    /// @notice Member `member` of the set of `epoch`.
    function memberOf(uint32 epoch, uint8 member) external view returns (uint32 attestorId);

    /// @notice Ids of all that can serve now: bonded enough, not leaving, not jailed.
    function eligible() external view returns (uint32[] memory);

    /// @notice What the market and the court owe nobody: kept for those that slashing could not make whole.
    function insurance() external view returns (uint128);

    function owedTo(address account) external view returns (uint128);

    function collect() external;
}
