// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Pull payments
/// @notice What a contract owes is written down, and paid when the creditor asks: a creditor that cannot be paid
/// stops nobody but itself.
/// @dev Amounts are in the token's base units.
interface IPullPayments {
    /// @notice Emitted when an account is paid all that it was owed.
    event Collected(address indexed account, uint128 amount);

    /// @notice The contract owes the account nothing.
    error NothingToCollect(address account);

    /// @notice The token moved another amount than asked (it takes a fee or rebases): it cannot be used here.
    error IncorrectDeposit(uint256 expected, uint256 received);

    /// @notice Pays the caller all that it is owed.
    function collect() external;

    /// @notice What `collect` would pay the account.
    function owedTo(address account) external view returns (uint128);

    /// @notice The sum of what is owed.
    function totalOwed() external view returns (uint128);

    /// @notice Token of bonds: the market's.
    function token() external view returns (IERC20);
}
