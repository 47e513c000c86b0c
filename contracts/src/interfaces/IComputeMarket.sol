// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IComputeMarketAccounts} from "./IComputeMarketAccounts.sol";
import {IComputeMarketCore} from "./IComputeMarketCore.sol";
import {IComputeMarketErrors} from "./IComputeMarketErrors.sol";
import {IComputeMarketEvents} from "./IComputeMarketEvents.sol";
import {IComputeMarketTypes} from "./IComputeMarketTypes.sol";

/// @title Compute market
/// @notice Holds the money between requesters, who pay for training, and operators, who stake and whose nodes
/// train. Nodes sign receipts for work, attestors sign its quality, and anyone may bring both here: the market
/// recomputes each payment, so whoever sends the transaction needs no trust.
/// @dev EIP-712 domain: name "HyperGPU", version "1". The token must move exactly the amounts it is asked to.
/// Calls can be bundled with `multicall(bytes[])`, the first of them `permit`, to deposit in one transaction.
/// The code is in two contracts, because one would be above the size that EVM chains take (EIP-170): what
/// ComputeMarket has no code for, it runs from MarketAccounts, on its own storage. Neither can be replaced.
interface IComputeMarket is IComputeMarketCore, IComputeMarketAccounts {}
