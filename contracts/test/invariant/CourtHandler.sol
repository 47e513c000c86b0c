// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {CourtTest} from "../utils/CourtTest.sol";
import {vm} from "../utils/Vm.sol";

/// @notice Opens cases and does to them whatever their stage allows, at random, or nothing, while time goes by.
/// Every act succeeds: what cannot be done is passed over.
contract CourtHandler is CourtTest {
    uint256 internal constant MOST_CASES = 12;

    constructor() {
        setUp();
    }

    /*//////////////////////////////////////////////////////////////
                                 ACTS
    //////////////////////////////////////////////////////////////*/

    function openAQualityCase(uint16 paid, bool byOperator) external {
        if (theCourt.caseCount() >= MOST_CASES || market.getJob(jobId).escrow - spentOrReserved() < 3 * FULL) return;
        challengeQuality(byOperator ? operator : challenger, settleRoundAt(paid % 10_001, 0));
    }

    function openAnAvailabilityCase(uint16 paid) external {
        if (theCourt.caseCount() >= MOST_CASES || market.getJob(jobId).escrow - spentOrReserved() < 3 * FULL) return;
        openAvailability(paid % 10_001);
    }

    function claimAnOmission() external {
        if (theCourt.caseCount() >= MOST_CASES || market.getJob(jobId).escrow - spentOrReserved() < 3 * FULL) return;
        if (market.getSeat(jobId, 3).recordedRound != 0) return;
        openOmission();
    }

    function answer(uint256 seed, bool contested) external {
        (uint256 caseId, IDisputeCourt.Case memory dispute) = pick(seed);
        if (dispute.stage == IDisputeCourt.Stage.Answering && time() < dispute.deadline) {
            show(caseId);
        } else if (dispute.stage == IDisputeCourt.Stage.Shown && time() < dispute.deadline && contested) {
            vm.prank(caseId % 2 == 0 ? challenger : requester);
            theCourt.contest(caseId);
        }
    }

    function drawOne(uint256 seed, uint16 blocks) external {
        (uint256 caseId, IDisputeCourt.Case memory dispute) = pick(seed);
        if (dispute.stage != IDisputeCourt.Stage.Drawing || time() >= dispute.deadline) return;
        vm.roll(dispute.drawBlock + 1 + blocks % 300);
        theCourt.drawCommittee(caseId);
    }

    /// @dev Those members vote whose bit is set and that can, each with a quality that it will be able to reveal.
    function vote(uint256 seed, uint256 mask) external {
        (uint256 caseId,) = pick(seed);
        uint32[] memory members = theCourt.getCommittee(caseId);
        for (uint256 i = 0; i < members.length; ++i) {
            if (mask >> i & 1 == 0) continue;
            IDisputeCourt.Case memory dispute = theCourt.getCase(caseId);
            IDisputeCourt.Vote memory vote_ = theCourt.getVote(caseId, members[i]);
            bool late = time() >= dispute.deadline;
            bool committing = dispute.stage == IDisputeCourt.Stage.Committing;
            bool revealing = dispute.stage == IDisputeCourt.Stage.Revealing && !late || committing && late
                && time() < dispute.deadline + REVEAL;
            uint16 quality = voteOf(caseId, members[i]);
            if (committing && !late && vote_.commitment == 0) {
                commit(caseId, members[i], quality);
            } else if (revealing && vote_.commitment != 0 && !vote_.revealed) {
                reveal(caseId, members[i], quality);
            }
        }
    }

    function decideOne(uint256 seed) external {
        (uint256 caseId,) = pick(seed);
        try theCourt.decide(caseId) {} catch {}
    }

    function appealOne(uint256 seed, uint8 by) external {
        (uint256 caseId, IDisputeCourt.Case memory dispute) = pick(seed);
        if (dispute.stage != IDisputeCourt.Stage.Decided || time() >= dispute.deadline) return;
        address[3] memory parties = [challenger, operator, requester];
        address party = parties[by % 3];
        if (party == challenger && dispute.challenger != challenger) return;
        vm.prank(party);
        theCourt.appeal(caseId);
    }

    function ruleOne(uint256 seed, uint16 finding, bool agrees) external {
        (uint256 caseId, IDisputeCourt.Case memory dispute) = pick(seed);
        if (dispute.stage != IDisputeCourt.Stage.Appealed || time() >= dispute.deadline) return;
        vm.prank(arbiter);
        theCourt.rule(caseId, agrees ? dispute.decided : finding % 10_001);
    }

    function executeOne(uint256 seed) external {
        (uint256 caseId, IDisputeCourt.Case memory dispute) = pick(seed);
        bool ready = dispute.stage == IDisputeCourt.Stage.Shown
            || dispute.stage == IDisputeCourt.Stage.Decided || dispute.stage == IDisputeCourt.Stage.Appealed;
        if (!ready || time() < dispute.deadline) return;
        theCourt.execute(caseId);
    }

    function proveAFault(uint64 round) external {
        if (theCourt.caseCount() >= MOST_CASES) return;
        vm.prank(challenger);
        try theCourt.proveReceiptFault(
            signedReceipt(round % 4, 2, UNITS, keccak256("a")),
            signedReceipt(round % 4, 2, UNITS, keccak256("b"))
        ) {}
            catch {}
    }

    function collectFor(uint8 by) external {
        address[4] memory accounts = [challenger, operator, requester, walletOf(4)];
        address account = accounts[by % 4];
        vm.startPrank(account);
        if (theCourt.owedTo(account) != 0) theCourt.collect();
        if (theRegistry.owedTo(account) != 0) theRegistry.collect();
        vm.stopPrank();
    }

    function leaveOne(uint256 seed) external {
        uint32 id = uint32(bound(seed, 6, 8));
        if (theRegistry.getAttestor(id).leavingAt == 0) {
            depart(id);
        } else {
            vm.prank(walletOf(id));
            try theRegistry.withdrawBond(id) {} catch {}
        }
    }

    function wait(uint32 elapsed) external {
        later(elapsed % 2 hours);
        vm.roll(vm.getBlockNumber() + 1 + elapsed % 20);
    }

    /*//////////////////////////////////////////////////////////////
                            WHAT MUST HOLD
    //////////////////////////////////////////////////////////////*/

    function checkAllBooks() external view {
        checkBooks();
        uint256 bonds = 0;
        for (uint256 i = 1; i <= theCourt.caseCount(); ++i) {
            IDisputeCourt.Case memory dispute = theCourt.getCase(i);
            if (dispute.stage == IDisputeCourt.Stage.Executed) continue;
            bonds += dispute.bond;
            if (dispute.appellant != address(0)) bonds += dispute.bond;
        }
        vm.assertEq(theCourt.bonds(), bonds, "bonds are those of open cases");
    }

    /// @dev Anyone brings every case to its end, with nothing but time.
    function endAll() external {
        for (uint256 i = 1; i <= theCourt.caseCount(); ++i) {
            for (uint256 step = 0; theCourt.getCase(i).stage != IDisputeCourt.Stage.Executed; ++step) {
                vm.assertTrue(step < 4, "a case takes too many steps");
                IDisputeCourt.Case memory dispute = theCourt.getCase(i);
                later(30 days);
                bool isDecided = dispute.stage == IDisputeCourt.Stage.Shown
                    || dispute.stage == IDisputeCourt.Stage.Decided
                    || dispute.stage == IDisputeCourt.Stage.Appealed;
                vm.prank(stranger);
                if (isDecided) theCourt.execute(i);
                else theCourt.decide(i);
            }
        }
        vm.assertEq(theCourt.bonds(), 0, "a bond is left behind");
        vm.assertEq(market.getJob(jobId).records, 0, "a record is left behind");
        checkBooks();
    }

    /*//////////////////////////////////////////////////////////////
                                HELPERS
    //////////////////////////////////////////////////////////////*/

    function pick(uint256 seed) internal view returns (uint256 caseId, IDisputeCourt.Case memory) {
        uint256 count = theCourt.caseCount();
        caseId = count == 0 ? 0 : 1 + seed % count;
        return (caseId, theCourt.getCase(caseId));
    }

    /// @dev Every other case is found to have been paid rightly.
    function voteOf(uint256 caseId, uint32 attestorId) internal view returns (uint16) {
        if (caseId % 2 == 0) return theCourt.getCase(caseId).paid;
        return uint16(uint256(keccak256(abi.encode(caseId, attestorId))) % 10_001);
    }

    function spentOrReserved() internal view returns (uint128) {
        return market.getJob(jobId).spent + market.getJob(jobId).reserved;
    }
}
