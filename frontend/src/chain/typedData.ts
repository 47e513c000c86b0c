/** The EIP-712 messages that the page shows, checks or lets a wallet sign; the same types as trainer/protocol and the contract. */

import { type Address, encodePacked, type Hex, size, slice, type TypedDataDomain } from 'viem';
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
    { name: 'epoch', type: 'uint32' },
    { name: 'base', type: 'bytes32' },
    { name: 'receipts', type: 'bytes32' },
    { name: 'evidence', type: 'bytes32' },
    { name: 'commitments', type: 'bytes32' },
  ],
  JobClosure: [
    { name: 'jobId', type: 'uint256' },
    { name: 'rounds', type: 'uint64' },
    { name: 'spent', type: 'uint128' },
    { name: 'epoch', type: 'uint32' },
  ],
  Acceptance: [
    { name: 'jobId', type: 'uint256' },
    { name: 'round', type: 'uint64' },
    { name: 'digest', type: 'bytes32' },
  ],
  Withdrawal: [
    { name: 'nodeId', type: 'uint32' },
    { name: 'to', type: 'address' },
    { name: 'amount', type: 'uint128' },
    { name: 'fee', type: 'uint128' },
    { name: 'nonce', type: 'uint64' },
    { name: 'deadline', type: 'uint64' },
  ],
  Bid: [
    { name: 'jobId', type: 'uint256' },
    { name: 'nodeId', type: 'uint32' },
    { name: 'rate', type: 'uint128' },
    { name: 'capacity', type: 'uint64' },
    { name: 'expiresAt', type: 'uint64' },
    { name: 'nonce', type: 'uint64' },
  ],
  Seating: [
    { name: 'jobId', type: 'uint256' },
    { name: 'maxUnits', type: 'uint48' },
    { name: 'bids', type: 'bytes32' },
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

export type PackedReceipt = { nodeId: number; units: bigint; artifact: Hex; signature: Hex };

const RECEIPT_BYTES = 109;

/** Receipts as `settleRound` reads them: nodeId, units, artifact, r, s, v; 109 bytes each, big endian. */
export function packReceipts(receipts: readonly PackedReceipt[]): Hex {
  const packed = receipts.map(({ nodeId, units, artifact, signature }) => {
    if (size(signature) !== 65) throw new RangeError(`The signature of node ${nodeId} is not 65 bytes.`);
    return encodePacked(['uint32', 'uint64', 'bytes32', 'bytes'], [nodeId, units, artifact, signature]).slice(
      2,
    );
  });
  return `0x${packed.join('')}`;
}

/** The inverse of `packReceipts`. */
export function unpackReceipts(packed: Hex): PackedReceipt[] {
  if (size(packed) % RECEIPT_BYTES !== 0) throw new RangeError('This is not a whole number of receipts.');
  return Array.from({ length: size(packed) / RECEIPT_BYTES }, (_, index) => {
    const part = (from: number, to: number) =>
      slice(packed, index * RECEIPT_BYTES + from, index * RECEIPT_BYTES + to);
    return {
      nodeId: Number(part(0, 4)),
      units: BigInt(part(4, 12)),
      artifact: part(12, 44),
      signature: part(44, 109),
    };
  });
}

/** An attestor's scores, basis points, one for each receipt: two bytes each, big endian. */
export function unpackScores(packed: Hex): number[] {
  if (size(packed) % 2 !== 0) throw new RangeError('This is not a whole number of scores.');
  return Array.from({ length: size(packed) / 2 }, (_, index) =>
    Number(slice(packed, 2 * index, 2 * index + 2)),
  );
}
