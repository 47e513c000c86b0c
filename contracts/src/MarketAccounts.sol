// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Acceptance} from "./market/Acceptance.sol";
import {Discipline} from "./market/Discipline.sol";
import {Governance} from "./market/Governance.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Views} from "./market/Views.sol";

/// @title Accounts of the compute market
/// @notice The second half of {ComputeMarket}'s code, which runs it on its own storage: operators and nodes, credit,
/// court, terms and views. By itself this contract holds nothing and is of no use.
contract MarketAccounts layout at 0x80 is Acceptance, Discipline, Views {
    /// @dev Nobody owns it: the market's owner is in the market's storage.
    constructor(IERC20 token_, address deployer) MarketBase(token_, address(this)) Governance(deployer) {}
}
