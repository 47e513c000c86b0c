// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketTest} from "./utils/MarketTest.sol";
import {Signing} from "./utils/Signing.sol";
import {vm} from "./utils/Vm.sol";

/// @notice Deposits without an allowance: by permit in one transaction, and by EIP-3009.
contract DepositsTest is MarketTest {
    bytes32 internal constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 internal constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    uint256 internal constant PAYER = 0xBA1;
    bytes32 internal constant SALT = keccak256("salt");
    address internal immutable payer = vm.addr(PAYER);

    function setUp() public override {
        super.setUp();
        token.mint(payer, 1_000);
    }

    function signToken(bytes32 structHash) internal view returns (bytes memory) {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash));
        return Signing.sign(PAYER, digest);
    }

    function authorize(uint256 amount, bytes memory purpose) internal view returns (Authorization memory) {
        return Authorization({
            from: payer,
            validAfter: 0,
            validBefore: FAR,
            salt: SALT,
            signature: signToken(
                keccak256(abi.encode(RECEIVE, payer, address(market), amount, 0, FAR, keccak256(purpose)))
            )
        });
    }

    function permit(uint128 amount) internal view returns (bytes memory call) {
        bytes32 structHash =
            keccak256(abi.encode(PERMIT, payer, address(market), amount, token.nonces(payer), FAR));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(PAYER, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
        return abi.encodeCall(market.permit, (amount, FAR, v, r, s));
    }

    function test_PermitAndDepositInOne_EvenIfThePermitWasUsedBefore() external {
        bytes[] memory calls = new bytes[](2);
        calls[0] = permit(600);
        calls[1] = abi.encodeCall(market.createJob, (SPEC, 400, RATE));
        vm.prank(payer);
        bytes[] memory results = market.multicall(calls);
        vm.assertEq(abi.decode(results[1], (uint256)), 1);
        vm.assertEq(market.getJob(1).requester, payer);

        calls[1] = abi.encodeCall(market.addStake, (200)); // The permit is used up; its allowance is not.
        vm.prank(payer);
        market.multicall(calls);
        vm.assertEq(market.getOperator(payer).stake, 200);
        checkHoldings();
    }

    function test_ABundleIsDoneWholeOrNotAtAll() external {
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(market.createJob, (SPEC, 1, RATE));
        calls[1] = abi.encodeCall(market.exitJob, (1));
        vm.expectRevert(abi.encodeWithSelector(ExitNotRequested.selector, 1));
        vm.prank(requester);
        market.multicall(calls);
        vm.assertEq(market.jobCount(), 0);
    }

    function test_AnyoneBringsAnAuthorization_ForJobEscrowAndStake() external {
        Authorization memory authorization =
            authorize(300, abi.encode("createJob", SPEC, uint128(300), RATE, SALT));
        vm.startPrank(stranger);
        market.createJobWithAuthorization(SPEC, 300, RATE, authorization);
        vm.assertEq(market.getJob(1).requester, payer);
        authorization = authorize(200, abi.encode("fundJob", uint256(1), uint128(200), SALT));
        market.fundJobWithAuthorization(1, 200, authorization);
        vm.assertEq(market.getJob(1).escrow, 500);
        authorization = authorize(100, abi.encode("addStake", uint128(100), SALT));
        market.addStakeWithAuthorization(100, authorization);
        vm.assertEq(market.getOperator(payer).stake, 100);
        vm.expectRevert(); // Used.
        market.addStakeWithAuthorization(100, authorization);
        vm.stopPrank();
        checkHoldings();
    }

    function test_AnAuthorizationIsGoodForNothingElse() external {
        postJob();
        postJob();
        Authorization memory authorization =
            authorize(300, abi.encode("fundJob", uint256(1), uint128(300), SALT));
        vm.startPrank(stranger);
        vm.expectRevert();
        market.fundJobWithAuthorization(2, 300, authorization);
        vm.expectRevert();
        market.fundJobWithAuthorization(1, 299, authorization);
        vm.expectRevert();
        market.addStakeWithAuthorization(300, authorization);
        vm.expectRevert();
        market.createJobWithAuthorization(SPEC, 300, RATE, authorization);
        market.fundJobWithAuthorization(1, 300, authorization);
        vm.stopPrank();
    }
}
