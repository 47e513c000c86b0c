// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC3009, IERC3009Cancel} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";

import {IComputeMarket} from "../../src/interfaces/IComputeMarket.sol";

/// @notice ComputeMarket with what it inherits from libraries.
interface Market is IComputeMarket, IERC5267 {
    function owner() external view returns (address);
    function transferOwnership(address newOwner) external;
    function multicall(bytes[] calldata data) external returns (bytes[] memory);
}

/// @notice TestUSD.
interface Token is IERC20Metadata, IERC20Permit, IERC3009, IERC3009Cancel {
    function mint(address to, uint256 amount) external;
}
