import { expect, it } from 'vitest';
import { entitiesOf } from '@/realtime/entities';
import { contribution, job, payment } from '@/test/fixtures';
import { ledgerOf, median, reconcile, rejectedOf, settleSeconds } from './ledger';

const final = { state: 'final', final_at: '2026-11-21T12:00:09.500Z' } as const;

it('joins each contribution with its payment, newest round first, the rejected apart', () => {
  const rows = entitiesOf({
    contributions: [
      contribution(0, 1),
      contribution(1, 1),
      contribution(0, 2, { state: 'rejected', code: 'contribution.not_finite' }),
    ],
    payments: [payment(0, 1)],
  });
  expect(
    ledgerOf(rows).map(({ contribution: { round }, payment: paid }) => [round, paid?.id ?? null]),
  ).toEqual([
    [1, null],
    [0, 301],
  ]);
  expect(rejectedOf(rows).map((row) => row.code)).toEqual(['contribution.not_finite']);
});

it('measures from the hand-in to finality', () => {
  expect(settleSeconds(payment(0, 1, final))).toBe(3.5);
  expect(settleSeconds(payment(0, 1))).toBeNull();
  expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, null]);
});

it('agrees with the chain to the last unit, or says that it does not', () => {
  const payments = [
    payment(0, 1, { ...final, amount: '6400' }),
    payment(0, 2, { ...final, amount: '6023' }),
    payment(1, 1),
  ];
  expect(reconcile(job({ spent: '12423' }), payments)).toEqual({
    credited: 12_423n,
    spent: 12_423n,
    agrees: true,
  });
  expect(reconcile(job({ spent: '12424' }), payments).agrees).toBe(false);
});
