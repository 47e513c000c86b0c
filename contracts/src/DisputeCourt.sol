// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {CaseBook} from "./dispute/CaseBook.sol";
import {Committee} from "./dispute/Committee.sol";
import {Evidence} from "./dispute/Evidence.sol";
import {IAttestorRegistry} from "./interfaces/IAttestorRegistry.sol";
import {IComputeMarket} from "./interfaces/IComputeMarket.sol";
import {IDisputeCourt} from "./interfaces/IDisputeCourt.sol";

/// @title Dispute court
/// @notice See {IDisputeCourt}. Nobody owns it; the arbiter can rule on appeals and nothing else. Here cases are
/// opened and, once they are decided, executed.
contract DisputeCourt is Committee {
    using SafeCast for uint256;

    bytes32 private constant ARTIFACT_POINTER_TYPEHASH =
        keccak256("ArtifactPointer(uint256 caseId,bytes32 artifact,string pointer)");
    /// @dev Of the bond of each attestor that opened a batch with a gross error; basis points.
    uint256 private constant GROSS_ERROR_SHARE = 500;

    /// @dev What the court knows about a receipt.
    struct Docket {
        uint128 openCase;
        bool judged;
        uint16 quality;
    }

    /// @inheritdoc IDisputeCourt
    uint16 public constant grossError = 2_500;

    mapping(bytes32 receipt => Docket) private _dockets;

    /// @param market_ Whose settlements are disputed, and whose token is the bond's.
    /// @param registry_ Whose attestors sit in committees.
    /// @param arbiter_ Who rules on appeals.
    constructor(
        IComputeMarket market_,
        IAttestorRegistry registry_,
        address arbiter_,
        CourtTerms memory terms_
    ) CaseBook(market_, registry_, arbiter_, terms_) {}

    /*//////////////////////////////////////////////////////////////
                           OPENING A CASE
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function challengeQuality(uint256 jobId, uint64 round, ReceiptProof calldata proof)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        Case storage dispute;
        (caseId, dispute) = _open(Kind.Quality, EVIDENCE.settledReceipt(jobId, round, proof));
        _startDraw(caseId, dispute);
        _takeBond(caseId, dispute);
    }

    /// @inheritdoc IDisputeCourt
    function challengeAvailability(uint256 jobId, uint64 round, ReceiptProof calldata proof)
        external
        nonReentrant
        returns (uint256 caseId)
    {
        Case storage dispute;
        (caseId, dispute) = _open(Kind.Availability, EVIDENCE.settledReceipt(jobId, round, proof));
        dispute.stage = Stage.Answering;
        dispute.deadline = uint64(block.timestamp) + _terms.answerTime / 2;
        _takeBond(caseId, dispute);
    }

    /// @inheritdoc IDisputeCourt
    function showArtifact(uint256 caseId, string calldata pointer, bytes calldata signature) external {
        Case storage dispute = _caseIn(caseId, Stage.Answering);
        bytes32 digest = _hashTypedDataV4(
            keccak256(
                abi.encode(ARTIFACT_POINTER_TYPEHASH, caseId, dispute.artifact, keccak256(bytes(pointer)))
            )
        );
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        EVIDENCE.requireNodeKey(dispute.nodeId, signer);
        // Uncontested, this is the finding: the artifact is there, and what was paid stands.
        dispute.stage = Stage.Shown;
        dispute.found = true;
        dispute.deadline += _terms.answerTime / 2;
        emit ArtifactShown(caseId, pointer, dispute.deadline);
    }

    /// @inheritdoc IDisputeCourt
    function contest(uint256 caseId) external {
        Case storage dispute = _caseIn(caseId, Stage.Shown);
        if (msg.sender != dispute.challenger) revert Unauthorized(msg.sender);
        dispute.found = false;
        _startDraw(caseId, dispute);
    }

    /// @inheritdoc IDisputeCourt
    function claimOmitted(
        SignedReceipt calldata receipt,
        SettledBatch[] calldata batches,
        bytes[] calldata receipts
    ) external nonReentrant returns (uint256 caseId) {
        Case storage dispute;
        (caseId, dispute) = _open(Kind.Omission, EVIDENCE.omittedReceipt(receipt, batches, receipts));
        uint64 recorded = market.holdRecord(dispute.jobId, dispute.round, dispute.nodeId);
        if (recorded != dispute.units) revert UnitsMismatch(dispute.units, recorded);
        _startDraw(caseId, dispute);
        _takeBond(caseId, dispute);
    }

    /*//////////////////////////////////////////////////////////////
                           APPEAL AND END
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function appeal(uint256 caseId) external nonReentrant {
        Case storage dispute = _caseIn(caseId, Stage.Decided);
        bool isParty = msg.sender == dispute.challenger || msg.sender == dispute.operator
            || msg.sender == dispute.requester;
        if (!isParty) revert Unauthorized(msg.sender);
        _callArbiter(caseId, dispute, msg.sender);
        _pullBond(dispute.bond);
    }

    /// @inheritdoc IDisputeCourt
    function rule(uint256 caseId, uint16 finding) external {
        if (msg.sender != arbiter) revert Unauthorized(msg.sender);
        Case storage dispute = _caseIn(caseId, Stage.Appealed);
        _requireQuality(finding);
        dispute.found = true;
        dispute.ruled = true;
        dispute.finding = finding;
        dispute.deadline = uint64(block.timestamp);
        emit CaseRuled(caseId, finding);
    }

    /// @inheritdoc IDisputeCourt
    function execute(uint256 caseId) external nonReentrant {
        Case storage dispute = _cases[caseId];
        Stage stage = dispute.stage;
        if (stage != Stage.Shown && stage != Stage.Decided && stage != Stage.Appealed) {
            revert WrongStage(caseId, stage);
        }
        _requireOver(dispute.deadline);
        dispute.stage = Stage.Executed;
        Docket storage docket = _docket(dispute.jobId, dispute.round, dispute.nodeId);
        docket.openCase = 0;

        bool seated = _isSeated();
        bool upheld = seated && _isUpheld(dispute);
        _settleBonds(caseId, dispute, seated);
        emit CaseExecuted(caseId, dispute.paid, dispute.finding, upheld);
        if (seated && dispute.kind == Kind.Omission) market.dropRecord(dispute.jobId, dispute.nodeId);
        if (upheld) (docket.judged, docket.quality) = (true, _correct(caseId, dispute));
    }

    /// @inheritdoc IDisputeCourt
    function freeRecord(uint256 jobId, uint32 nodeId) external nonReentrant {
        _requireSeated();
        Seat memory seat = market.getSeat(jobId, nodeId);
        if (!seat.claimed || _docket(jobId, seat.recordedRound - 1, nodeId).openCase != 0) {
            revert NoOrphan(jobId, nodeId);
        }
        emit RecordFreed(jobId, nodeId);
        market.dropRecord(jobId, nodeId);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function openCaseOf(uint256 jobId, uint64 round, uint32 nodeId) external view returns (uint256) {
        return _docket(jobId, round, nodeId).openCase;
    }

    /*//////////////////////////////////////////////////////////////
                               OPENING
    //////////////////////////////////////////////////////////////*/

    /// @dev A case about the receipt that this call shows.
    function _open(Kind kind, Evidence.Exhibit memory shown)
        private
        returns (uint256 caseId, Case storage dispute)
    {
        _requireSeated();
        Docket storage docket = _docket(shown.jobId, shown.round, shown.nodeId);
        if (docket.openCase != 0) revert CaseIsOpen(docket.openCase);
        if (docket.judged) (shown.paid, shown.standing) = (docket.quality, docket.quality);
        (caseId, dispute) = _newCase(kind, shown);
        docket.openCase = uint128(caseId);
    }

    function _takeBond(uint256 caseId, Case storage dispute) private {
        uint128 bond = _terms.bond;
        dispute.bond = bond;
        emit CaseOpened(
            caseId,
            dispute.jobId,
            dispute.nodeId,
            dispute.kind,
            dispute.round,
            msg.sender,
            bond,
            dispute.deadline
        );
        _pullBond(bond);
    }

    function _docket(uint256 jobId, uint64 round, uint32 nodeId) private view returns (Docket storage) {
        return _dockets[keccak256(abi.encode(jobId, round, nodeId))];
    }

    /*//////////////////////////////////////////////////////////////
                              EXECUTION
    //////////////////////////////////////////////////////////////*/

    /// @dev An omitted receipt is worth something or nothing; a paid one was paid rightly, within the tolerance.
    function _isUpheld(Case storage dispute) private view returns (bool) {
        if (dispute.kind == Kind.Omission) return dispute.finding != 0;
        return _differ(dispute.finding, dispute.paid);
    }

    /// @dev Books the bonds only. With no finding, or a court that was replaced, all go back.
    function _settleBonds(uint256 caseId, Case storage dispute, bool seated) private {
        address other = _otherSide(dispute);
        if (!seated || !dispute.found || _isUpheld(dispute)) {
            _releaseBond(dispute.challenger, dispute.bond);
        } else {
            _forfeit(caseId, dispute, other);
        }
        address appellant = dispute.appellant;
        if (appellant == address(0)) return;
        bool lost = seated && dispute.ruled && !_differ(dispute.finding, dispute.decided);
        if (!lost) _releaseBond(appellant, dispute.bond);
        else _releaseBond(appellant == dispute.challenger ? other : dispute.challenger, dispute.bond);
    }

    /// @dev Half of a lost bond to the committee members that revealed, the rest to the other side.
    function _forfeit(uint256 caseId, Case storage dispute, address other) private {
        Ballot storage ballot = _ballots[caseId];
        uint128 rest = dispute.bond;
        if (ballot.revealed != 0) {
            uint128 fee = dispute.bond / 2 / ballot.revealed;
            for (uint256 i = 0; i < ballot.members.length; ++i) {
                uint32 attestorId = ballot.members[i];
                if (!ballot.votes[attestorId].revealed) continue;
                _releaseBond(registry.getAttestor(attestorId).owner, fee);
                rest -= fee;
            }
        }
        _releaseBond(other, rest);
    }

    /// @dev Moves the difference between what was paid and what was found.
    /// @return standing Quality that the receipt is paid at now: as found, unless the escrow was too small.
    function _correct(uint256 caseId, Case storage dispute) private returns (uint16 standing) {
        (uint16 paid, uint16 finding) = (dispute.paid, dispute.finding);
        uint128 costs = dispute.bond;
        uint256 full = uint256(dispute.units) * market.getSeat(dispute.jobId, dispute.nodeId).rate;
        uint256 before = full * paid / QUALITY_ONE;
        uint256 due = full * finding / QUALITY_ONE;
        standing = finding;
        if (due > before) {
            uint256 awarded = _award(caseId, dispute);
            // Fits: less than the finding.
            if (awarded < due - before) standing = paid + uint16(awarded * QUALITY_ONE / full);
        } else if (due < before) {
            uint128 overpaid = (before - due).toUint128();
            costs -= _penalizeNode(caseId, overpaid, overpaid, costs);
        }
        if (dispute.kind == Kind.Quality && _distance(paid, finding) > grossError) {
            _slashSigners(caseId, dispute, costs);
        }
    }

    function _award(uint256 caseId, Case storage dispute) private returns (uint128) {
        return market.award(
            caseId, dispute.jobId, dispute.round, dispute.nodeId, dispute.units, dispute.paid, dispute.finding
        );
    }

    /// @param costs Of the challenger, that the node has not repaid.
    function _slashSigners(uint256 caseId, Case storage dispute, uint128 costs) private {
        address injured = dispute.finding < dispute.paid ? dispute.requester : dispute.operator;
        uint32[] memory signers = EVIDENCE.membersOf(dispute.epoch, dispute.attestors);
        for (uint256 i = 0; i < signers.length; ++i) {
            if (signers[i] == 0) continue;
            costs -= _slashShare(signers[i], caseId, GROSS_ERROR_SHARE, injured, costs);
        }
    }

    /// @dev Who is wronged by a challenge that fails: the node's operator; the requester, if the challenge was made
    /// for the node.
    function _otherSide(Case storage dispute) private view returns (address) {
        bool forNode = dispute.kind == Kind.Omission || dispute.challenger == dispute.operator;
        return forNode ? dispute.requester : dispute.operator;
    }
}
