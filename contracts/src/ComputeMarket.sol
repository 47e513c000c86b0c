// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {MarketAccounts} from "./MarketAccounts.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Settlement} from "./market/Settlement.sol";

/// @title Compute market
/// @notice See {IComputeMarket}. Whoever sends a settlement needs no trust. The owner, a timelock, can change terms
/// within bounds, and which registry and court the market listens to. No role can move credit, stake or escrow but
/// the court, within the bounds of {Discipline}. The code cannot be replaced.
/// @dev What this contract has no function for, it runs from {MarketAccounts}, which it deploys itself.
contract ComputeMarket layout at 0x80 is Settlement {
    MarketAccounts private immutable _code;

    /// @param token_ Token of stakes, escrow and pay; moves exactly what it is asked to.
    /// @param terms_ First terms.
    /// @param timelock Owner: may change terms, periphery and guardian.
    /// @param guardian_ May pause.
    /// @param deployer May name registry and court, once.
    constructor(IERC20 token_, Terms memory terms_, address timelock, address guardian_, address deployer)
        MarketBase(token_, timelock)
    {
        _setTerms(terms_);
        _setGuardian(guardian_);
        _code = new MarketAccounts(token_, deployer);
    }

    /// @dev Runs the call in the market's storage, and answers what it answers. Takes no native coin.
    fallback() external {
        address code = address(_code);
        assembly ("memory-safe") {
            let memoryEnd := mload(0x40)
            calldatacopy(memoryEnd, 0, calldatasize())
            let success := delegatecall(gas(), code, memoryEnd, calldatasize(), 0, 0)
            returndatacopy(memoryEnd, 0, returndatasize())
            if iszero(success) { revert(memoryEnd, returndatasize()) }
            return(memoryEnd, returndatasize())
        }
    }
}
