// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestorRegistry} from "../src/interfaces/IAttestorRegistry.sol";
import {IPullPayments} from "../src/interfaces/IPullPayments.sol";
import {CourtTest, Registry} from "./utils/CourtTest.sol";
import {vm} from "./utils/Vm.sol";

/// @notice See Registry.tree. Attestors 1, 2 and 3 are the set of epoch 2; eight can serve.
contract RegistryTest is CourtTest {
    function slash(uint32 attestorId, uint128 amount, uint128 costs) internal returns (uint128) {
        vm.prank(address(theCourt));
        return theRegistry.slash(attestorId, 7, amount, requester, challenger, costs);
    }

    function expectRefused(bytes4 reason) internal {
        vm.expectPartialRevert(reason);
    }

    /*//////////////////////////////////////////////////////////////
                         CONSTRUCTOR, ADMISSION
    //////////////////////////////////////////////////////////////*/

    function test_Terms_AreBounded() external {
        address[] memory nobody = new address[](0);
        IAttestorRegistry.RegistryTerms[5] memory bad;
        for (uint256 i = 0; i < 5; ++i) {
            bad[i] = registryTerms();
        }
        bad[0].minBond = 0;
        bad[1].epochLength = 0;
        bad[2].leaveTime = WINDOW + DISPUTE - 1;
        bad[3].setSize = 17;
        bad[4].setSize = 0;
        for (uint256 i = 0; i < 5; ++i) {
            bytes memory arguments = abi.encode(market, timelock, bad[i], nobody);
            try this.create(arguments) {
                revert("accepted");
            } catch (bytes memory) {}
        }
        IAttestorRegistry.RegistryTerms memory least = registryTerms();
        least.leaveTime = WINDOW + DISPUTE;
        deployRegistry(least, nobody);
    }

    function create(bytes calldata arguments) external returns (address) {
        return vm.deployCode("AttestorRegistry.sol:AttestorRegistry", arguments);
    }

    function test_Domain() external view {
        (, string memory name, string memory version,, address verifier,,) = theRegistry.eip712Domain();
        vm.assertEq(name, "HyperGPU Attestors");
        vm.assertEq(version, "1");
        vm.assertEq(verifier, address(theRegistry));
        vm.assertEq(theRegistry.owner(), timelock);
    }

    function test_Admit_IsTheTimelocks() external {
        expectRefused(bytes4(keccak256("OwnableUnauthorizedAccount(address)")));
        theRegistry.admit(stranger, true);
        vm.prank(timelock);
        theRegistry.admit(signerOf(1), false);
        vm.assertFalse(theRegistry.isAdmitted(signerOf(1)));
        vm.assertEq(theRegistry.eligible().length, 8, "one that joined stays");
    }

    /*//////////////////////////////////////////////////////////////
                         JOINING AND LEAVING
    //////////////////////////////////////////////////////////////*/

    function test_Join_RefusesStrangersAndRepeats() external {
        address wallet = walletOf(9);
        fundFor(wallet, address(theRegistry));
        bytes memory possession = possessionOf(SIGNER + 9, wallet);
        vm.startPrank(wallet);
        expectRefused(IAttestorRegistry.NotAdmitted.selector);
        theRegistry.join(signerOf(9), MIN_BOND, possession);
        expectRefused(IAttestorRegistry.SignerTaken.selector);
        theRegistry.join(signerOf(1), MIN_BOND, possession);
        vm.stopPrank();
        vm.prank(timelock);
        theRegistry.admit(signerOf(9), true);
        vm.startPrank(wallet);
        expectRefused(IAttestorRegistry.BondTooSmall.selector);
        theRegistry.join(signerOf(9), MIN_BOND - 1, possession);
        expectRefused(IAttestorRegistry.InvalidPossession.selector);
        theRegistry.join(signerOf(9), MIN_BOND, possessionOf(SIGNER + 9, stranger));
        vm.assertEq(theRegistry.join(signerOf(9), MIN_BOND, possession), 9);
        vm.stopPrank();
        vm.assertEq(theRegistry.attestorOf(signerOf(9)), 9);
        checkBooks();
    }

    function test_AddBond_ByAnyone_ToOneThatServes() external {
        fundFor(stranger, address(theRegistry));
        vm.startPrank(stranger);
        theRegistry.addBond(1, 5);
        vm.assertEq(bondOf(1), MIN_BOND + 5);
        expectRefused(IAttestorRegistry.UnknownAttestor.selector);
        theRegistry.addBond(99, 5);
        vm.stopPrank();
        depart(1);
        vm.prank(stranger);
        expectRefused(IAttestorRegistry.AttestorIsLeaving.selector);
        theRegistry.addBond(1, 5);
        checkBooks();
    }

    function test_Leave_IsTheOwners_AndEndsDraws() external {
        vm.prank(stranger);
        expectRefused(IAttestorRegistry.Unauthorized.selector);
        theRegistry.requestLeave(1);
        depart(1);
        vm.prank(walletOf(1));
        expectRefused(IAttestorRegistry.AttestorIsLeaving.selector);
        theRegistry.requestLeave(1);
        uint32[] memory rest = theRegistry.eligible();
        vm.assertEq(rest.length, 7);
        for (uint256 i = 0; i < rest.length; ++i) {
            vm.assertTrue(rest[i] != 1);
        }
    }

    function test_WithdrawBond_OfOneThatNeverServed_AfterLeaveTime() external {
        vm.prank(walletOf(8));
        expectRefused(IAttestorRegistry.AttestorIsServing.selector);
        theRegistry.withdrawBond(8);
        depart(8);
        later(LEAVE - 1);
        vm.prank(walletOf(8));
        expectRefused(IAttestorRegistry.TooEarly.selector);
        theRegistry.withdrawBond(8);
        later(1);
        vm.prank(stranger);
        expectRefused(IAttestorRegistry.Unauthorized.selector);
        theRegistry.withdrawBond(8);
        uint256 before = token.balanceOf(walletOf(8));
        vm.prank(walletOf(8));
        theRegistry.withdrawBond(8);
        vm.assertEq(token.balanceOf(walletOf(8)) - before, MIN_BOND);
        vm.prank(walletOf(8));
        expectRefused(IAttestorRegistry.NoBond.selector);
        theRegistry.withdrawBond(8);
        checkBooks();
    }

    /// @dev A member that left can still sign until its epoch's grace is over: its bond answers for that.
    function test_WithdrawBond_OfAMember_WaitsForItsLastSignature() external {
        depart(1);
        later(LEAVE);
        vm.prank(walletOf(1));
        expectRefused(IAttestorRegistry.StillInSet.selector);
        theRegistry.withdrawBond(1);
        begin();
        later(GRACE + LEAVE - 1);
        vm.prank(walletOf(1));
        expectRefused(IAttestorRegistry.TooEarly.selector);
        theRegistry.withdrawBond(1);
        slash(1, 100e6, 0);
        later(1);
        uint256 before = token.balanceOf(walletOf(1));
        vm.prank(walletOf(1));
        theRegistry.withdrawBond(1);
        vm.assertEq(token.balanceOf(walletOf(1)) - before, MIN_BOND - 100e6);
        vm.assertEq(slash(1, 100e6, 0), 0, "nothing is left to take");
        checkBooks();
    }

    /// @dev Another registry's epoch ends the members' service here.
    function test_WithdrawBond_FromARegistryThatWasReplaced() external {
        depart(1);
        vm.prank(timelock);
        market.setPeriphery(registry, address(theCourt));
        vm.prank(registry);
        market.beginEpoch(attestors(), 2);
        later(GRACE + LEAVE);
        vm.prank(walletOf(1));
        theRegistry.withdrawBond(1);
        vm.assertEq(bondOf(1), 0);
    }

    /*//////////////////////////////////////////////////////////////
                                EPOCHS
    //////////////////////////////////////////////////////////////*/

    /// @dev Schedules the draw, and draws.
    function begin() internal returns (uint32 epoch) {
        vm.assertEq(theRegistry.beginEpoch(), 0, "scheduled");
        vm.roll(vm.getBlockNumber() + 3);
        return theRegistry.beginEpoch();
    }

    function test_BeginEpoch_NotWhileTheSetCanServe() external {
        expectRefused(IAttestorRegistry.EpochNotOver.selector);
        theRegistry.beginEpoch();
        later(EPOCH - 1);
        expectRefused(IAttestorRegistry.EpochNotOver.selector);
        theRegistry.beginEpoch();
        later(1);
        vm.assertEq(begin(), 3);
    }

    function test_BeginEpoch_AsSoonAsAMemberCannotServe() external {
        depart(2);
        vm.assertEq(begin(), 3);
        (, address[] memory members,) = market.getAttestors();
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertTrue(members[i] != signerOf(2));
        }
    }

    function test_BeginEpoch_AsSoonAsAMemberIsJailed() external {
        slash(3, 1, 0);
        begin();
    }

    function test_BeginEpoch_OfAsManyAsThereAre() external {
        IAttestorRegistry.RegistryTerms memory terms = registryTerms();
        terms.setSize = 5;
        useNewRegistry(terms, 4);
        vm.prank(stranger);
        theRegistry.beginEpoch();
        (, address[] memory members, uint8 quorum) = market.getAttestors();
        vm.assertEq(members.length, 4);
        vm.assertEq(quorum, 3);
    }

    /// @dev Whoever waits until all others are gone must not become the set.
    function test_BeginEpoch_OfTooFew_LeavesTheSetThatIsThere() external {
        for (uint32 i = 3; i <= 8; ++i) {
            depart(i);
        }
        later(10 * EPOCH);
        vm.expectRevert(abi.encodeWithSelector(IAttestorRegistry.TooFewEligible.selector, 2, 3));
        theRegistry.beginEpoch();
        (uint32 epoch, address[] memory members,) = market.getAttestors();
        vm.assertEq(epoch, 2);
        vm.assertEq(members.length, 3);
        vm.prank(walletOf(3));
        expectRefused(IAttestorRegistry.StillInSet.selector);
        theRegistry.withdrawBond(3);
    }

    function test_BeginEpoch_OfTooFew_NotEvenTheFirst() external {
        useNewRegistry(registryTerms(), 2);
        vm.expectRevert(abi.encodeWithSelector(IAttestorRegistry.TooFewEligible.selector, 2, 3));
        theRegistry.beginEpoch();
        IAttestorRegistry.RegistryTerms memory small = registryTerms();
        small.setSize = 2;
        useNewRegistry(small, 2);
        theRegistry.beginEpoch();
    }

    function useNewRegistry(IAttestorRegistry.RegistryTerms memory terms, uint32 size) internal {
        address[] memory admitted = new address[](size);
        for (uint32 i = 0; i < size; ++i) {
            admitted[i] = signerOf(i + 1);
        }
        theRegistry = deployRegistry(terms, admitted);
        vm.prank(timelock);
        market.setPeriphery(address(theRegistry), address(theCourt));
        for (uint32 i = 1; i <= size; ++i) {
            join(i);
        }
    }

    function test_BeginEpoch_DrawsByABlockToCome() external {
        later(EPOCH);
        theRegistry.beginEpoch();
        (,, uint64 drawBlock) = theRegistry.currentEpoch();
        vm.assertEq(drawBlock, vm.getBlockNumber() + 2);
        vm.roll(drawBlock);
        expectRefused(IAttestorRegistry.DrawNotReady.selector);
        theRegistry.beginEpoch();
        vm.roll(drawBlock + 257);
        vm.assertEq(theRegistry.beginEpoch(), 0, "the hash is gone: scheduled anew");
        (,, drawBlock) = theRegistry.currentEpoch();
        vm.assertEq(drawBlock, vm.getBlockNumber() + 2);
        vm.roll(drawBlock + 1);
        vm.assertEq(theRegistry.beginEpoch(), 3);
        (uint32 epoch, uint64 begunAt, uint64 none) = theRegistry.currentEpoch();
        vm.assertEq(epoch, 3);
        vm.assertEq(begunAt, time());
        vm.assertEq(none, 0);
    }

    /// @dev Who is drawn of the others does not depend on one that leaves once the hash is known.
    function testFuzz_BeginEpoch_LeavingMovesNobodyElse(uint256 block_, uint32 leaver) external {
        vm.roll(bound(block_, 2_000, 1e9));
        leaver = uint32(bound(leaver, 1, 8));
        later(EPOCH);
        theRegistry.beginEpoch();
        vm.roll(vm.getBlockNumber() + 3);
        uint256 before = vm.snapshotState();
        theRegistry.beginEpoch();
        (bool[9] memory drawn, uint256 count) = setOf(3);
        vm.assertEq(count, 3, "distinct members");
        vm.revertToState(before);
        depart(leaver);
        theRegistry.beginEpoch();
        (bool[9] memory redrawn, uint256 recount) = setOf(3);
        vm.assertEq(recount, 3);
        for (uint32 i = 1; i <= 8; ++i) {
            if (drawn[i] && i != leaver) vm.assertTrue(redrawn[i], "moved by another's leaving");
        }
        vm.assertFalse(redrawn[leaver]);
    }

    function setOf(uint32 epoch) internal view returns (bool[9] memory drawn, uint256 count) {
        (address[] memory members,,) = market.getEpoch(epoch);
        for (uint8 i = 0; i < members.length; ++i) {
            uint32 id = theRegistry.memberOf(epoch, i);
            vm.assertEq(members[i], signerOf(id));
            vm.assertEq(theRegistry.getAttestor(id).lastEpoch, epoch);
            if (!drawn[id]) ++count;
            drawn[id] = true;
        }
        vm.assertEq(theRegistry.memberOf(epoch, uint8(members.length)), 0);
    }

    function testFuzz_Quorum_IsTwoThirdsAndMoreThanHalf(uint8 size) external {
        size = uint8(bound(size, 1, 8));
        IAttestorRegistry.RegistryTerms memory terms = registryTerms();
        terms.setSize = size;
        useNewRegistry(terms, size);
        theRegistry.beginEpoch();
        (, address[] memory members, uint8 quorum) = market.getAttestors();
        vm.assertEq(members.length, size);
        vm.assertTrue(
            uint256(quorum) * 3 >= uint256(size) * 2 && (uint256(quorum) - 1) * 3 < uint256(size) * 2
        );
        vm.assertTrue(uint256(quorum) * 2 > size);
    }

    /*//////////////////////////////////////////////////////////////
                        SLASHING AND INSURANCE
    //////////////////////////////////////////////////////////////*/

    function test_Slash_IsTheCourts() external {
        vm.prank(stranger);
        expectRefused(IAttestorRegistry.Unauthorized.selector);
        theRegistry.slash(1, 7, 1, requester, challenger, 0);
        vm.prank(address(theCourt));
        expectRefused(IAttestorRegistry.UnknownAttestor.selector);
        theRegistry.slash(99, 7, 1, requester, challenger, 0);
    }

    function testFuzz_Slash_SplitsWhatThereIs(uint128 amount, uint128 costs) external {
        uint128 taken = slash(1, amount, costs);
        vm.assertEq(taken, amount > MIN_BOND ? MIN_BOND : amount);
        vm.assertEq(bondOf(1), MIN_BOND - taken);
        uint128 refund = costs > taken / 4 ? taken / 4 : costs;
        vm.assertEq(theRegistry.owedTo(challenger), refund);
        vm.assertEq(theRegistry.owedTo(requester), (taken - refund) / 2);
        vm.assertEq(theRegistry.insurance(), taken - refund - (taken - refund) / 2);
        checkBooks();
    }

    function test_Slash_WithNobodyInjured_IsInsurance() external {
        vm.prank(address(theCourt));
        theRegistry.slash(1, 7, 100, address(0), address(0), 25);
        vm.assertEq(theRegistry.insurance(), 100);
        vm.assertEq(theRegistry.totalOwed(), 0);
    }

    function test_Slash_JailsLongerWithEachFault() external {
        fundFor(stranger, address(theRegistry));
        vm.prank(stranger);
        theRegistry.addBond(1, 100);
        slash(1, 1, 0);
        vm.assertEq(theRegistry.getAttestor(1).jailedUntil, time() + EPOCH);
        slash(1, 1, 0);
        vm.assertEq(theRegistry.getAttestor(1).jailedUntil, time() + 2 * EPOCH);
        vm.assertEq(theRegistry.getAttestor(1).faults, 2);
        vm.assertEq(theRegistry.eligible().length, 7);
        later(2 * EPOCH);
        vm.assertEq(theRegistry.eligible().length, 8);
    }

    function test_AddInsurance_ByAnyone() external {
        fundFor(stranger, address(theRegistry));
        vm.prank(stranger);
        theRegistry.addInsurance(7);
        vm.assertEq(theRegistry.insurance(), 7);
        checkBooks();
    }

    function test_PayInsurance_ByTheTimelock() external {
        slash(1, 100, 0);
        expectRefused(bytes4(keccak256("OwnableUnauthorizedAccount(address)")));
        theRegistry.payInsurance(operator, 50);
        vm.startPrank(timelock);
        expectRefused(IAttestorRegistry.InsufficientInsurance.selector);
        theRegistry.payInsurance(operator, 51);
        theRegistry.payInsurance(operator, 50);
        vm.stopPrank();
        checkBooks();
        uint256 before = token.balanceOf(operator);
        vm.startPrank(operator);
        theRegistry.collect();
        vm.assertEq(token.balanceOf(operator) - before, 50);
        expectRefused(IPullPayments.NothingToCollect.selector);
        theRegistry.collect();
        vm.stopPrank();
        checkBooks();
    }
}
