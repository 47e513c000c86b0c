// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {NodeStorage} from "./NodeStorage.sol";

/// @title What all parts of the market share
/// @notice The signing domain, the token on its way in and out, the books of what it is held for, small checks.
abstract contract MarketBase is NodeStorage, IComputeMarket, EIP712, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev Sums over all accounts, kept in step with them.
    struct Holdings {
        uint128 escrow;
        uint128 credit;
        uint128 stake;
        uint128 owed;
        uint128 insurance;
    }

    /// @inheritdoc IComputeMarket
    IERC20 public immutable token;

    /// @inheritdoc IComputeMarket
    Holdings public holdings;
    /// @inheritdoc IComputeMarket
    mapping(address account => uint128) public owedTo;

    constructor(IERC20 token_) EIP712("HyperGPU", "1") {
        _requireNonZero(address(token_));
        token = token_;
    }

    /*//////////////////////////////////////////////////////////////
                             DEBTS, PERMIT
    //////////////////////////////////////////////////////////////*/

    /// @inheritdoc IComputeMarket
    function collect() external nonReentrant {
        uint128 amount = owedTo[msg.sender];
        if (amount == 0) revert NothingToCollect(msg.sender);
        owedTo[msg.sender] = 0;
        holdings.owed -= amount;
        emit Collected(msg.sender, amount);
        _push(msg.sender, amount);
    }

    /// @inheritdoc IComputeMarket
    function permit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        // Whoever sees a permit can use it first. Then the allowance is there, and the deposit goes on.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
    }

    /*//////////////////////////////////////////////////////////////
                               INTERNAL
    //////////////////////////////////////////////////////////////*/

    /// @dev Takes `amount` from the caller, and refuses a token that moves more or less.
    function _pull(uint128 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        _requireReceived(before, amount);
    }

    /// @dev Takes `amount` from the payer on its signature; `purpose` says what for, and makes the nonce.
    function _pullAuthorized(uint128 amount, bytes32 purpose, Authorization calldata authorization) internal {
        (uint8 v, bytes32 r, bytes32 s) = ECDSA.parseCalldata(authorization.signature);
        uint256 before = token.balanceOf(address(this));
        IERC3009(address(token))
            .receiveWithAuthorization(
                authorization.from,
                address(this),
                amount,
                authorization.validAfter,
                authorization.validBefore,
                purpose,
                v,
                r,
                s
            );
        _requireReceived(before, amount);
    }

    function _push(address to, uint128 amount) internal {
        token.safeTransfer(to, amount);
    }

    function _owe(address account, uint128 amount) internal {
        owedTo[account] += amount;
        holdings.owed += amount;
    }

    /// @dev An ordinary signature first: a wallet under EIP-7702 has code, and may yet sign with its key.
    function _requireWalletSignature(address wallet, bytes32 structHash, bytes calldata signature)
        internal
        view
    {
        bytes32 digest = _hashTypedDataV4(structHash);
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (signer == wallet) return;
        if (!SignatureChecker.isValidERC1271SignatureNowCalldata(wallet, digest, signature)) {
            revert InvalidWalletSignature(wallet);
        }
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

    function _requireReceived(uint256 before, uint128 amount) private view {
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert IncorrectDeposit(amount, received);
    }
}
