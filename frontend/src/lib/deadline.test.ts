import { expect, it } from 'vitest';
import { job } from '@/test/fixtures';
import { momentOf, standingOf } from './deadline';

const NOW = Date.UTC(2026, 10, 21, 12);
const due = (seconds: number) => job({ finish_by: new Date(NOW + 1000 * seconds).toISOString() });

it.each([
  [600, null, 'ok'],
  [600, { from: 100, to: 500 }, 'ok'],
  [600, { from: 500, to: 700 }, 'warn'],
  [600, { from: 650, to: 700 }, 'bad'],
  [-10, { from: 650, to: 700 }, 'bad'],
])('due in %i s with %o left is %s', (seconds, eta, tone) => {
  expect(standingOf(due(seconds), eta, NOW)?.tone).toBe(tone);
});

it('says how early or late a job ended, and nothing where there is no deadline', () => {
  const ended = (seconds: number) => ({
    ...due(0),
    state: 'completed' as const,
    completed_at: new Date(NOW + 1000 * seconds).toISOString(),
  });
  expect(standingOf(ended(-90), null, NOW + 1e9)?.text).toMatch(/^1.min 30.s early$/);
  expect(standingOf(ended(30), null, NOW)?.text).toMatch(/^30.s late$/);
  expect(standingOf(job(), null, NOW)).toBeNull();
});

it('reads what was typed in the zone of the browser', () => {
  expect(momentOf('2026-11-22T06:30')).toBe(new Date(2026, 10, 22, 6, 30).toISOString());
  expect(momentOf('')).toBeNull();
});
