// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
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
    using SafeERC20 for IERC20;

    bytes32 private constant ARTIFACT_POINTER_TYPEHASH =
        keccak256("ArtifactPointer(uint256 caseId,bytes32 artifact,string pointer)");

    /// @dev What the court knows about a receipt.
    /// @param judged Whether a case has moved money; it is paid at `quality` since.
    /// @param gone Whether its artifact was found not to be had: nothing makes it worth more.
    /// @param caseOf The one case of each kind.
    struct Docket {
        bool judged;
        bool gone;
        uint16 quality;
        mapping(Kind => uint256) caseOf;
    }

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
        _holdPay(dispute);
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
        _holdPay(dispute);
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
    function contest(uint256 caseId) external nonReentrant {
        Case storage dispute = _caseIn(caseId, Stage.Shown);
        address former = dispute.challenger;
        dispute.found = false;
        dispute.challenger = msg.sender;
        emit CaseContested(caseId, msg.sender);
        _startDraw(caseId, dispute);
        if (msg.sender == former) return;
        _releaseBond(former, dispute.bond);
        _pullBond(dispute.bond);
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
        bool seated = _isSeated();
        bool upheld = seated && _isUpheld(dispute);
        emit CaseExecuted(caseId, dispute.paid, dispute.finding, upheld);
        _settleBonds(caseId, dispute, seated);
        if (!seated) return;
        if (dispute.held != 0) market.freeCredit(dispute.nodeId, dispute.held);
        if (dispute.kind == Kind.Omission) _dropRecord(dispute.jobId, dispute.round, dispute.nodeId);
        if (upheld) _correct(caseId, dispute);
    }

    /// @inheritdoc IDisputeCourt
    function freeRecord(uint256 jobId, uint32 nodeId) external nonReentrant {
        _requireSeated();
        Seat memory seat = market.getSeat(jobId, nodeId);
        if (!seat.claimed || _isOpen(caseOf(jobId, seat.recordedRound - 1, nodeId, Kind.Omission))) {
            revert NoOrphan(jobId, nodeId);
        }
        emit RecordFreed(jobId, nodeId);
        market.dropRecord(jobId, nodeId);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function caseOf(uint256 jobId, uint64 round, uint32 nodeId, Kind kind) public view returns (uint256) {
        return _docket(jobId, round, nodeId).caseOf[kind];
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
        if (docket.caseOf[kind] != 0) revert AlreadyDisputed(docket.caseOf[kind]);
        if (docket.judged) shown.paid = docket.quality;
        (caseId, dispute) = _newCase(kind, shown);
        docket.caseOf[kind] = caseId;
    }

    /// @dev What is disputed must still be there when the case ends.
    function _holdPay(Case storage dispute) private {
        uint128 amount = (_fullPay(dispute) * dispute.paid / QUALITY_ONE).toUint128();
        dispute.held = amount;
        if (amount != 0) market.holdCredit(dispute.nodeId, amount);
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

    function _isOpen(uint256 caseId) private view returns (bool) {
        return caseId != 0 && _cases[caseId].stage != Stage.Executed;
    }

    function _docket(uint256 jobId, uint64 round, uint32 nodeId) private view returns (Docket storage) {
        return _dockets[keccak256(abi.encode(jobId, round, nodeId))];
    }

    /*//////////////////////////////////////////////////////////////
                              EXECUTION
    //////////////////////////////////////////////////////////////*/

    /// @dev An omitted receipt is worth something or nothing; a paid one was paid rightly, within the tolerance. That
    /// an artifact can be had makes it worth no more.
    function _isUpheld(Case storage dispute) private view returns (bool) {
        if (dispute.kind == Kind.Omission) return dispute.finding != 0;
        if (dispute.kind == Kind.Availability && dispute.finding > dispute.paid) return false;
        return _differ(dispute.finding, dispute.paid);
    }

    /// @dev With no finding, or a court that was replaced, all bonds go back. What is lost never goes to a party,
    /// which could be the loser's friend: it would lose nothing.
    function _settleBonds(uint256 caseId, Case storage dispute, bool seated) private {
        uint128 lost = 0;
        if (!seated || !dispute.found || _isUpheld(dispute)) {
            _releaseBond(dispute.challenger, dispute.bond);
        } else {
            lost = dispute.bond - _payCommittee(caseId, dispute.bond / 2);
        }
        if (dispute.appellant != address(0)) {
            bool moved = _differ(dispute.finding, dispute.decided);
            if (seated && dispute.ruled && !moved) lost += dispute.bond;
            else _releaseBond(dispute.appellant, dispute.bond);
        }
        if (lost == 0) return;
        bonds -= lost;
        token.forceApprove(address(registry), lost);
        registry.addInsurance(lost);
    }

    /// @dev Shares out `amount` among the members that revealed.
    /// @return paid Less than `amount` by what does not divide; 0 if nobody did.
    function _payCommittee(uint256 caseId, uint128 amount) private returns (uint128 paid) {
        Ballot storage ballot = _ballots[caseId];
        if (ballot.revealed == 0) return 0;
        uint128 fee = amount / ballot.revealed;
        for (uint256 i = 0; i < ballot.members.length; ++i) {
            uint32 attestorId = ballot.members[i];
            if (!ballot.votes[attestorId].revealed) continue;
            _releaseBond(registry.getAttestor(attestorId).owner, fee);
            paid += fee;
        }
    }

    /// @dev Moves the difference between what the receipt is paid now, after its other case, and what was found.
    function _correct(uint256 caseId, Case storage dispute) private {
        Docket storage docket = _docket(dispute.jobId, dispute.round, dispute.nodeId);
        (uint16 paid, uint16 finding) = (dispute.paid, dispute.finding);
        if (docket.judged) paid = docket.quality;
        bool isAvailability = dispute.kind == Kind.Availability;
        if ((docket.gone || isAvailability) && finding > paid) finding = paid;
        if (isAvailability) docket.gone = true;
        (docket.judged, docket.quality) = (true, finding);

        uint256 full = _fullPay(dispute);
        uint256 before = full * paid / QUALITY_ONE;
        uint256 due = full * finding / QUALITY_ONE;
        if (due > before) {
            uint256 awarded = market.award(
                caseId, dispute.jobId, dispute.round, dispute.nodeId, dispute.units, paid, finding
            );
            // The escrow may have been too small.
            if (awarded < due - before) docket.quality = paid + (awarded * QUALITY_ONE / full).toUint16();
        } else if (due < before) {
            uint128 overpaid = (before - due).toUint128();
            _penalizeNode(caseId, overpaid, overpaid);
        }
    }

    /// @dev By the end of a case that nobody executed in time the seat may have another record, or none.
    function _dropRecord(uint256 jobId, uint64 round, uint32 nodeId) private {
        if (market.getSeat(jobId, nodeId).recordedRound == round + 1) market.dropRecord(jobId, nodeId);
    }

    /// @dev Pay of the receipt at full quality, base units.
    function _fullPay(Case storage dispute) private view returns (uint256) {
        return uint256(dispute.units) * market.getSeat(dispute.jobId, dispute.nodeId).rate;
    }
}
