// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Acceptance} from "./market/Acceptance.sol";
import {Discipline} from "./market/Discipline.sol";
import {Governance} from "./market/Governance.sol";
import {MarketBase} from "./market/MarketBase.sol";

/// @title Compute market
/// @notice See {IComputeMarket}. The code cannot be replaced. Whoever sends a settlement needs no trust; the owner,
/// a timelock, can change terms within bounds, and which registry and court the market listens to; no role can
/// move credit, stake or escrow but the court, within the bounds of {Discipline}.
/// @dev The storage begins at a page boundary: see {NodeStorage}.
contract ComputeMarket layout at 0x80 is Acceptance, Discipline {
    /// @param token_ Token of stakes, escrow and pay; moves exactly what it is asked to.
    /// @param terms_ First terms.
    /// @param timelock Owner: may change terms, periphery and guardian.
    /// @param guardian_ May pause.
    /// @param deployer May name registry and court, once.
    constructor(IERC20 token_, Terms memory terms_, address timelock, address guardian_, address deployer)
        MarketBase(token_)
        Governance(terms_, timelock, guardian_, deployer)
    {}
}
