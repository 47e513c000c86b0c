// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IComputeMarket} from "../interfaces/IComputeMarket.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Attestors
/// @notice Who vouches for the quality of work, and how many of them must.
abstract contract AttestorSet is MarketBase, Ownable2Step {
    uint256 private constant MAX_ATTESTORS = 32;

    /// @inheritdoc IComputeMarket
    mapping(address account => bool) public isAttestor;

    address[] private _attestors;
    uint8 private _quorum;

    constructor(address admin, address[] memory attestors, uint8 quorum) Ownable(admin) {
        _setAttestors(attestors, quorum);
    }

    /// @inheritdoc IComputeMarket
    function setAttestors(address[] calldata attestors, uint8 quorum) external onlyOwner {
        _setAttestors(attestors, quorum);
    }

    /// @inheritdoc IComputeMarket
    function getAttestors() external view returns (address[] memory attestors, uint8 quorum) {
        return (_attestors, _quorum);
    }

    function _requireQuorum(bytes32 structHash, bytes[] calldata attestations) internal view {
        if (attestations.length < _quorum) revert QuorumNotReached(attestations.length, _quorum);
        bytes32 digest = _hashTypedDataV4(structHash);
        address previous = address(0);
        for (uint256 i = 0; i < attestations.length; ++i) {
            (address signer,,) = ECDSA.tryRecoverCalldata(digest, attestations[i]);
            if (!isAttestor[signer]) revert NotAttestor(signer);
            if (signer <= previous) revert AttestorsOutOfOrder(previous, signer);
            previous = signer;
        }
    }

    function _setAttestors(address[] memory attestors, uint8 quorum) private {
        if (quorum == 0 || quorum > attestors.length || attestors.length > MAX_ATTESTORS) {
            revert InvalidQuorum(attestors.length, quorum, MAX_ATTESTORS);
        }
        for (uint256 i = 0; i < _attestors.length; ++i) {
            isAttestor[_attestors[i]] = false;
        }
        for (uint256 i = 0; i < attestors.length; ++i) {
            _requireNonZero(attestors[i]);
            if (isAttestor[attestors[i]]) revert DuplicateAttestor(attestors[i]);
            isAttestor[attestors[i]] = true;
        }
        _attestors = attestors;
        _quorum = quorum;
        emit AttestorsChanged(attestors, quorum);
    }
}
