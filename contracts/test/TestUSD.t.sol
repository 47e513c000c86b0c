// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

import {Token} from "./utils/Market.sol";
import {vm} from "./utils/Vm.sol";

contract TestUSDTest {
    uint256 internal constant OWNER = 0x1000;
    address internal immutable owner = vm.addr(OWNER);
    address internal constant RECIPIENT = address(0x4E);
    bytes32 internal constant NONCE = keccak256("nonce");
    Token internal token;

    function setUp() external {
        vm.warp(1_700_000_000);
        token = Token(vm.deployCode("TestUSD.sol:TestUSD"));
        token.mint(owner, 100e6);
    }

    function sign(bytes32 structHash) internal view returns (uint8 v, bytes32 r, bytes32 s) {
        return vm.sign(OWNER, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }

    function authorization(string memory kind, uint256 validAfter, uint256 validBefore)
        internal
        view
        returns (bytes32)
    {
        bytes memory fields =
            "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce";
        bytes32 typeHash = keccak256(abi.encodePacked(kind, "(", fields, ")"));
        return keccak256(abi.encode(typeHash, owner, RECIPIENT, 5e6, validAfter, validBefore, NONCE));
    }

    function test_ItLooksLikeUSDC() external view {
        vm.assertEq(token.name(), "HyperGPU Test USD");
        vm.assertEq(token.symbol(), "tUSD");
        vm.assertEq(token.decimals(), 6);
    }

    function test_ItsDomainIsNameAndVersion1() external view {
        bytes32 domain =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 separator = keccak256(
            abi.encode(domain, keccak256("HyperGPU Test USD"), keccak256("1"), block.chainid, address(token))
        );
        vm.assertEq(token.DOMAIN_SEPARATOR(), separator);
    }

    function test_Permit_ApprovesBySignature() external {
        bytes32 typeHash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        uint256 deadline = block.timestamp;
        (uint8 v, bytes32 r, bytes32 s) =
            sign(keccak256(abi.encode(typeHash, owner, RECIPIENT, 5e6, 0, deadline)));
        token.permit(owner, RECIPIENT, 5e6, deadline, v, r, s);
        vm.assertEq(token.allowance(owner, RECIPIENT), 5e6);
    }

    function test_TransferWithAuthorization_AnyoneBringsIt_Once() external {
        uint256 end = block.timestamp + 60;
        (uint8 v, bytes32 r, bytes32 s) = sign(authorization("TransferWithAuthorization", 0, end));
        token.transferWithAuthorization(owner, RECIPIENT, 5e6, 0, end, NONCE, v, r, s);
        vm.assertEq(token.balanceOf(RECIPIENT), 5e6);
        vm.assertTrue(token.authorizationState(owner, NONCE));
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, owner, NONCE));
        token.transferWithAuthorization(owner, RECIPIENT, 5e6, 0, end, NONCE, v, r, s);
    }

    function test_TransferWithAuthorization_OnlyInItsTime() external {
        uint256 end = block.timestamp;
        (uint8 v, bytes32 r, bytes32 s) = sign(authorization("TransferWithAuthorization", 0, end));
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, 0, end));
        token.transferWithAuthorization(owner, RECIPIENT, 5e6, 0, end, NONCE, v, r, s);
    }

    function test_ReceiveWithAuthorization_OnlyTheRecipientBringsIt() external {
        uint256 end = block.timestamp + 60;
        (uint8 v, bytes32 r, bytes32 s) = sign(authorization("ReceiveWithAuthorization", 0, end));
        vm.expectRevert();
        token.receiveWithAuthorization(owner, RECIPIENT, 5e6, 0, end, NONCE, v, r, s);
        vm.prank(RECIPIENT);
        token.receiveWithAuthorization(owner, RECIPIENT, 5e6, 0, end, NONCE, v, r, s);
        vm.assertEq(token.balanceOf(RECIPIENT), 5e6);
    }

    function test_CancelAuthorization_UsesItUp() external {
        bytes32 typeHash = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
        (uint8 v, bytes32 r, bytes32 s) = sign(keccak256(abi.encode(typeHash, owner, NONCE)));
        token.cancelAuthorization(owner, NONCE, v, r, s);
        uint256 end = block.timestamp + 60;
        (v, r, s) = sign(authorization("TransferWithAuthorization", 0, end));
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, owner, NONCE));
        token.transferWithAuthorization(owner, RECIPIENT, 5e6, 0, end, NONCE, v, r, s);
    }
}
