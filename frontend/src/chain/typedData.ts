/** The EIP-712 messages that the page shows, checks or lets a wallet sign; the same types as trainer/protocol and the contract. */

import {
  type Address,
  encodePacked,
  type Hex,
  parseSignature,
  size,
  slice,
  type TypedDataDomain,
} from 'viem';
import type { Network } from '@/api/types';

export const TYPES = {
  Delegation: [
    { name: 'operator', type: 'address' },
    { name: 'hotKey', type: 'address' },
    { name: 'expiresAt', type: 'uint64' },
    { name: 'nonce', type: 'uint64' },
  ],
  WorkOrder: [
    { name: 'jobId', type: 'uint256' },
    { name: 'round', type: 'uint64' },
    { name: 'nodeId', type: 'uint32' },
    { name: 'fence', type: 'uint64' },
    { name: 'deadline', type: 'uint64' },
    { name: 'base', type: 'bytes32' },
    { name: 'body', type: 'bytes32' },
  ],
  Receipt: [
    { name: 'jobId', type: 'uint256' },
    { name: 'round', type: 'uint64' },
    { name: 'nodeId', type: 'uint32' },
    { name: 'units', type: 'uint64' },
    { name: 'base', type: 'bytes32' },
    { name: 'artifact', type: 'bytes32' },
  ],
  RoundAttestation: [
    { name: 'jobId', type: 'uint256' },
    { name: 'round', type: 'uint64' },
    { name: 'batch', type: 'uint32' },
    { name: 'last', type: 'bool' },
    { name: 'base', type: 'bytes32' },
    { name: 'receipts', type: 'bytes32' },
    { name: 'evidence', type: 'bytes32' },
  ],
  JobClosure: [
    { name: 'jobId', type: 'uint256' },
    { name: 'rounds', type: 'uint64' },
    { name: 'spent', type: 'uint128' },
  ],
  Bid: [
    { name: 'jobId', type: 'uint256' },
    { name: 'nodeId', type: 'uint32' },
    { name: 'rate', type: 'uint128' },
    { name: 'capacity', type: 'uint64' },
    { name: 'expiresAt', type: 'uint64' },
    { name: 'nonce', type: 'uint64' },
  ],
} as const;

/** Where a signature counts: one chain and one ComputeMarket. */
export function domainOf(
  network: Network,
): TypedDataDomain & { chainId: number; verifyingContract: Address } {
  return {
    name: 'HyperGPU',
    version: '1',
    chainId: network.chain.id,
    verifyingContract: network.contracts.market,
  };
}

export type SettledReceipt = {
  nodeId: number;
  units: bigint;
  quality: number;
  artifact: Hex;
  signature: Hex;
};

/** Receipts as `settleRound` reads them: nodeId, units, quality, artifact, r, s, v; 111 bytes each, big endian. */
export function packReceipts(receipts: readonly SettledReceipt[]): Hex {
  const packed = receipts.map(({ nodeId, units, quality, artifact, signature }) => {
    if (size(signature) !== 65) throw new RangeError(`The signature of node ${nodeId} is not 65 bytes.`);
    const { r, s } = parseSignature(signature);
    const v = Number(slice(signature, 64));
    return encodePacked(
      ['uint32', 'uint64', 'uint16', 'bytes32', 'bytes32', 'bytes32', 'uint8'],
      [nodeId, units, quality, artifact, r, s, v],
    ).slice(2);
  });
  return `0x${packed.join('')}`;
}
