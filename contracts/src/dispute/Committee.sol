// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {Draw} from "../libraries/Draw.sol";
import {Faults} from "./Faults.sol";

/// @title The committee
/// @notice Draws it, takes its votes, counts them.
abstract contract Committee is Faults {
    struct Ballot {
        uint32[] members;
        uint8 committed;
        uint8 revealed;
        mapping(uint32 attestorId => Vote) votes;
    }

    /// @dev Of a member's bond, for not revealing; basis points.
    uint256 private constant SILENCE_SHARE = 100;

    mapping(uint256 caseId => Ballot) internal _ballots;

    /*//////////////////////////////////////////////////////////////
                                 DRAW
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function drawCommittee(uint256 caseId) external {
        Case storage dispute = _caseIn(caseId, Stage.Drawing);
        if (block.number <= dispute.drawBlock) revert DrawNotReady(dispute.drawBlock);
        bytes32 seed = Draw.seedOf(dispute.drawBlock);
        if (seed == 0) return _scheduleDraw(caseId, dispute);
        uint32[] memory pool = EVIDENCE.impartial(
            dispute.epoch, dispute.attestors, dispute.challenger, dispute.operator, dispute.requester
        );
        if (pool.length == 0) return _callArbiter(caseId, dispute, address(0));

        uint32[] memory members = Draw.choose(pool, _terms.committeeSize, seed);
        Ballot storage ballot = _ballots[caseId];
        ballot.members = members;
        for (uint256 i = 0; i < members.length; ++i) {
            ballot.votes[members[i]].drawn = true;
        }
        dispute.stage = Stage.Committing;
        dispute.deadline = uint64(block.timestamp) + _terms.commitTime;
        emit CommitteeDrawn(caseId, members, dispute.deadline, dispute.deadline + _terms.revealTime);
    }

    /*//////////////////////////////////////////////////////////////
                                VOTES
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function commitVote(uint256 caseId, bytes32 commitment) external {
        Case storage dispute = _caseIn(caseId, Stage.Committing);
        Ballot storage ballot = _ballots[caseId];
        (uint32 attestorId, Vote storage vote) = _voteOfCaller(caseId, ballot);
        if (commitment == 0) revert EmptyCommitment();
        if (vote.commitment != 0) revert AlreadyVoted(caseId, attestorId);
        vote.commitment = commitment;
        ballot.committed += 1;
        emit VoteCommitted(caseId, attestorId, commitment);
        if (ballot.committed == ballot.members.length) {
            dispute.stage = Stage.Revealing;
            dispute.deadline = uint64(block.timestamp) + _terms.revealTime;
        }
    }

    /// @inheritdoc IDisputeCourt
    function revealVote(uint256 caseId, uint16 quality, bytes32 salt) external {
        _endCommitting(_cases[caseId]);
        _caseIn(caseId, Stage.Revealing);
        Ballot storage ballot = _ballots[caseId];
        (uint32 attestorId, Vote storage vote) = _voteOfCaller(caseId, ballot);
        if (vote.revealed) revert AlreadyVoted(caseId, attestorId);
        _requireQuality(quality);
        bytes32 commitment = keccak256(abi.encode(caseId, msg.sender, quality, salt));
        if (commitment != vote.commitment) revert CommitmentMismatch(vote.commitment, commitment);
        vote.revealed = true;
        vote.quality = quality;
        ballot.revealed += 1;
        emit VoteRevealed(caseId, attestorId, quality);
    }

    /// @inheritdoc IDisputeCourt
    function decide(uint256 caseId) external nonReentrant {
        Case storage dispute = _cases[caseId];
        _endCommitting(dispute);
        if (dispute.stage == Stage.Answering) {
            _requireOver(dispute.deadline);
            dispute.found = true;
            dispute.finding = 0;
        } else if (dispute.stage == Stage.Drawing) {
            _requireOver(dispute.deadline);
        } else if (dispute.stage == Stage.Revealing) {
            Ballot storage ballot = _ballots[caseId];
            if (ballot.revealed != ballot.committed) _requireOver(dispute.deadline);
            _count(dispute, ballot);
            _slashSilent(caseId, ballot);
        } else {
            revert WrongStage(caseId, dispute.stage);
        }
        dispute.decided = dispute.finding;
        dispute.stage = Stage.Decided;
        dispute.deadline = uint64(block.timestamp) + _terms.appealTime;
        emit CaseDecided(caseId, dispute.finding, dispute.found, dispute.deadline);
    }

    /*//////////////////////////////////////////////////////////////
                                VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IDisputeCourt
    function getCommittee(uint256 caseId) external view returns (uint32[] memory attestorIds) {
        return _ballots[caseId].members;
    }

    /// @inheritdoc IDisputeCourt
    function getVote(uint256 caseId, uint32 attestorId) external view returns (Vote memory) {
        return _ballots[caseId].votes[attestorId];
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev The first draw of a case sets its deadline; one whose block was missed has no longer for it.
    function _startDraw(uint256 caseId, Case storage dispute) internal {
        dispute.stage = Stage.Drawing;
        dispute.deadline = uint64(block.timestamp) + _terms.commitTime;
        _scheduleDraw(caseId, dispute);
    }

    function _callArbiter(uint256 caseId, Case storage dispute, address appellant) internal {
        dispute.stage = Stage.Appealed;
        dispute.decided = dispute.finding;
        dispute.appellant = appellant;
        dispute.deadline = uint64(block.timestamp) + _terms.rulingTime;
        emit CaseAppealed(caseId, appellant, dispute.deadline);
    }

    function _scheduleDraw(uint256 caseId, Case storage dispute) private {
        dispute.drawBlock = Draw.scheduled();
        emit DrawScheduled(caseId, dispute.drawBlock, dispute.deadline);
    }

    function _voteOfCaller(uint256 caseId, Ballot storage ballot)
        private
        view
        returns (uint32 attestorId, Vote storage vote)
    {
        attestorId = registry.attestorOf(msg.sender);
        vote = ballot.votes[attestorId];
        if (!vote.drawn) revert NotInCommittee(caseId, msg.sender);
    }

    /// @dev When the time to commit is over, whoever has committed can reveal.
    function _endCommitting(Case storage dispute) private {
        if (dispute.stage == Stage.Committing && block.timestamp >= dispute.deadline) {
            dispute.stage = Stage.Revealing;
            dispute.deadline += _terms.revealTime;
        }
    }

    /// @dev The lower median of what was revealed, if that is half of the committee at least.
    function _count(Case storage dispute, Ballot storage ballot) private {
        uint256 count = ballot.revealed;
        if (count == 0 || 2 * count < ballot.members.length) return;
        uint16[] memory sorted = new uint16[](count);
        uint256 filled = 0;
        for (uint256 i = 0; i < ballot.members.length; ++i) {
            Vote storage vote = ballot.votes[ballot.members[i]];
            if (!vote.revealed) continue;
            uint256 j = filled++;
            for (; j > 0 && sorted[j - 1] > vote.quality; --j) {
                sorted[j] = sorted[j - 1];
            }
            sorted[j] = vote.quality;
        }
        dispute.found = true;
        dispute.finding = sorted[(count - 1) / 2];
    }

    function _slashSilent(uint256 caseId, Ballot storage ballot) private {
        if (!_isSeated()) return;
        for (uint256 i = 0; i < ballot.members.length; ++i) {
            uint32 attestorId = ballot.members[i];
            if (!ballot.votes[attestorId].revealed) {
                _slashShare(attestorId, caseId, SILENCE_SHARE, address(0), address(0));
            }
        }
    }
}
