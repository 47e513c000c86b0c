// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IPullPayments} from "../interfaces/IPullPayments.sol";

/// @title Bonds in, debts out
/// @notice Money comes in when its owner deposits it and goes out when its owner fetches it; in between it only
/// changes books.
abstract contract PullPayments is IPullPayments, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @inheritdoc IPullPayments
    IERC20 public immutable token;
    /// @inheritdoc IPullPayments
    mapping(address account => uint128) public owedTo;
    /// @inheritdoc IPullPayments
    uint128 public totalOwed;

    constructor(IERC20 token_) {
        token = token_;
    }

    /// @inheritdoc IPullPayments
    function collect() external nonReentrant {
        uint128 amount = owedTo[msg.sender];
        if (amount == 0) revert NothingToCollect(msg.sender);
        owedTo[msg.sender] = 0;
        totalOwed -= amount;
        emit Collected(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    function _owe(address account, uint128 amount) internal {
        owedTo[account] += amount;
        totalOwed += amount;
    }

    /// @dev Takes `amount` from the caller, and refuses a token that moves more or less.
    function _pull(uint128 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert IncorrectDeposit(amount, received);
    }
}
