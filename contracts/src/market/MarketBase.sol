// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";

/// @title What all parts of the market share
/// @notice The signing domain, the token and small checks.
abstract contract MarketBase is IComputeMarket, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    uint64 private constant MAX_DURATION = 365 days;

    /// @inheritdoc IComputeMarket
    IERC20 public immutable token;

    constructor(IERC20 token_) EIP712("HyperGPU", "1") {
        _requireNonZero(address(token_));
        token = token_;
    }

    /// @dev Takes `amount` from the caller, and refuses a token that moves more or less.
    function _pull(uint128 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert IncorrectDeposit(amount, received);
    }

    function _push(address to, uint128 amount) internal {
        token.safeTransfer(to, amount);
    }

    function _requireNonZero(address account) internal pure {
        if (account == address(0)) revert ZeroAddress();
    }

    function _requirePositive(uint128 amount) internal pure {
        if (amount == 0) revert ZeroAmount();
    }

    function _requireReached(uint64 time) internal view {
        if (block.timestamp < time) revert TooEarly(time);
    }

    function _requireDuration(uint64 duration) internal pure {
        if (duration == 0 || duration > MAX_DURATION) revert InvalidDuration(duration, MAX_DURATION);
    }
}
