// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CourtHandler} from "./CourtHandler.sol";

/// @notice Whatever people do or leave undone, all three contracts hold what they owe, and every case can be brought
/// to its end by strangers and time alone.
contract CourtInvariants {
    CourtHandler internal handler;

    function setUp() external {
        handler = new CourtHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        bytes4[] memory selectors = new bytes4[](3);
        selectors[0] = handler.setUp.selector;
        selectors[1] = handler.endAll.selector;
        selectors[2] = handler.checkAllBooks.selector;
        excluded = new FuzzSelector[](1);
        excluded[0] = FuzzSelector(address(handler), selectors);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function invariant_TheContractsHoldWhatTheyOwe() external view {
        handler.checkAllBooks();
    }

    function afterInvariant() external {
        handler.endAll();
    }
}
