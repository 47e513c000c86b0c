import { type Hex, hashDomain, hashTypedData, keccak256, recoverTypedDataAddress } from 'viem';
import { describe, expect, it } from 'vitest';
import { medianQuality, reward } from '@/lib/money';
import { network } from '@/test/fixtures';
import vectors from '../../../tests/vectors/protocol.json';
import { domainOf, packReceipts, TYPES, unpackReceipts, unpackScores } from './typedData';

const domain = domainOf(network);
const messages = Object.entries(vectors.messages);

describe('EIP-712 messages, by the vectors that Python and Solidity assert too', () => {
  it('share one domain', () => {
    expect(domain).toEqual(vectors.domain);
    const types = {
      EIP712Domain: [
        { name: 'name', type: 'string' },
        { name: 'version', type: 'string' },
        { name: 'chainId', type: 'uint256' },
        { name: 'verifyingContract', type: 'address' },
      ],
    };
    expect(hashDomain({ domain, types } as unknown as Parameters<typeof hashDomain>[0])).toBe(
      vectors.domainSeparator,
    );
  });

  it('cover every type', () => {
    expect(messages.map(([, vector]) => vector.primaryType).sort()).toEqual(Object.keys(TYPES).sort());
  });

  it.each(messages)('%s has its digest and its signer', async (_, vector) => {
    const primaryType = vector.primaryType as keyof typeof TYPES;
    expect(TYPES[primaryType]).toEqual(vector.types);
    const typed = { domain, types: TYPES, primaryType, message: vector.message } as Parameters<
      typeof hashTypedData
    >[0];
    expect(hashTypedData(typed)).toBe(vector.digest);
    expect(await recoverTypedDataAddress({ ...typed, signature: vector.signature as Hex })).toBe(
      vector.signer,
    );
  });
});

describe('packed receipts', () => {
  const receipts = vectors.batch.receipts.map((receipt) => ({
    ...receipt,
    units: BigInt(receipt.units),
    artifact: receipt.artifact as Hex,
    signature: receipt.signature as Hex,
  }));

  it('are the bytes that the contract reads', () => {
    const packed = packReceipts(receipts);
    expect(packed).toBe(vectors.batch.packed);
    expect(keccak256(packed)).toBe(vectors.batch.hash);
    expect(unpackReceipts(packed)).toEqual(receipts);
  });

  it('refuse a torn batch and torn scores', () => {
    expect(() => unpackReceipts('0x1234')).toThrow(RangeError);
    expect(() => unpackScores('0x123456')).toThrow(RangeError);
    expect(unpackScores('0x271000070000')).toEqual([10_000, 7, 0]);
  });

  it('refuse a torn signature', () => {
    const [first] = receipts;
    expect(() => packReceipts([{ ...(first as (typeof receipts)[0]), signature: '0x1234' }])).toThrow(
      RangeError,
    );
  });
});

it.each(vectors.medians)('the median of $scores is $median', ({ scores, median }) => {
  expect(medianQuality(scores)).toBe(median);
});

it.each(vectors.rewards)(
  'a reward of $units units at $rate and $quality basis points is $amount',
  ({ units, rate, quality, amount }) => {
    expect(reward(BigInt(units), BigInt(rate), BigInt(quality))).toBe(BigInt(amount));
  },
);
