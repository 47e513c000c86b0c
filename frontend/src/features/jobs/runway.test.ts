import { expect, it } from 'vitest';
import { job } from '@/test/fixtures';
import { missingFor, runsLow } from './runway';

it.each([
  [{ runway: 12, round: 0 }, false],
  [{ runway: 2, round: 4 }, true],
  [{ runway: 3, round: 4 }, false],
  [{ runway: 1, round: 11 }, false],
  [{ runway: 0, round: 11 }, true],
  [{ runway: null, round: 0 }, false],
  [{ runway: 0, round: 4, state: 'completed' as const }, false],
])('%o runs low: %s', (change, low) => {
  expect(runsLow(job({ rounds: 12, ...change }))).toBe(low);
});

it('asks for what the rest costs at most, and never for less than the shortfall', () => {
  const start = { escrow: '1000', spent: '400', rounds: 10, round: 4 };
  expect(missingFor(job({ ...start }), 2000n)).toBe(600n);
  expect(missingFor(job({ ...start, shortfall: '700' }), 2000n)).toBe(700n);
  expect(missingFor(job({ ...start, round: 10 }), 2000n)).toBe(0n);
});
