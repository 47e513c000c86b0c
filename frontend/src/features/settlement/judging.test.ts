import { describe, expect, it } from 'vitest';
import type { Settlement } from '@/api/types';
import vectors from '../../../../tests/vectors/protocol.json';
import { judgingOf } from './judging';

const hex = (scores: number[]) =>
  `0x${scores.map((score) => score.toString(16).padStart(4, '0')).join('')}` as const;
const opened = (member: number, scores: number[]) => ({
  member,
  salt: `0x${'00'.repeat(32)}` as const,
  scores: hex(scores),
  signature: `0x${'11'.repeat(65)}` as const,
});
const silent = (member: number) => ({
  member,
  salt: `0x${'22'.repeat(32)}` as const,
  scores: '0x' as const,
  signature: '0x' as const,
});

const settlement: Settlement = {
  chain_id: 31337,
  market: vectors.domain.verifyingContract,
  job_id: 1,
  round: 0,
  batches: [
    {
      header: { round: 0, batch: 0, epoch: 4 },
      receipts: vectors.batch.packed as `0x${string}`,
      attestations: [opened(0, [10_000, 9_000]), opened(1, [9_990, 0]), silent(2)],
    },
  ],
};

describe('how a receipt was judged', () => {
  it('is the lower median of what the attestors showed', () => {
    expect(judgingOf(settlement, 13)).toEqual({
      epoch: 4,
      batch: 0,
      parts: [
        { member: 0, score: 9_000 },
        { member: 1, score: 0 },
        { member: 2, score: null },
      ],
      median: 0,
    });
    expect(judgingOf(settlement, 12)?.median).toBe(9_990);
  });

  it('is nothing for a node that is in no batch', () => {
    expect(judgingOf(settlement, 99)).toBeNull();
  });
});
