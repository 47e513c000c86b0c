// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

/// @title HyperGPU Test USD
/// @notice A stand-in for USDC on test networks, with the same decimals, permit (ERC-2612) and transfers by
/// authorization (EIP-3009). Anyone can mint any amount of it: it is worth nothing, and must not be used where
/// money is real.
contract TestUSD is ERC20Permit, ERC3009 {
    constructor() ERC20("HyperGPU Test USD", "tUSD") ERC20Permit("HyperGPU Test USD") {}

    /// @notice Makes `amount` base units for `to`. For test networks only, and open to all.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice As USDC: 1 tUSD is 1,000,000 base units.
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
