/** Contributions and what they were paid, joined, and whether the sums agree with the chain. */

import type { Contribution, Job, Payment } from '@/api/types';
import { sum } from '@/lib/money';
import type { Entities } from '@/realtime/entities';

export type Line = { contribution: Contribution; payment: Payment | null };

/** Accepted and pending contributions, newest first, each with its payment when there is one. */
export function ledgerOf(entities: Entities): Line[] {
  const payments = new Map(
    [...entities.payments.values()].map((payment) => [payment.contribution_id, payment]),
  );
  return [...entities.contributions.values()]
    .filter((contribution) => contribution.state !== 'rejected')
    .sort((a, b) => b.round - a.round || b.id - a.id)
    .map((contribution) => ({ contribution, payment: payments.get(contribution.id) ?? null }));
}

export function rejectedOf(entities: Entities): Contribution[] {
  return [...entities.contributions.values()]
    .filter((contribution) => contribution.state === 'rejected')
    .sort((a, b) => b.id - a.id);
}

/** Seconds from the hand-in until the payment was final; null while it is not. */
export function settleSeconds(payment: Payment): number | null {
  if (payment.final_at === null) return null;
  return (Date.parse(payment.final_at) - Date.parse(payment.handed_in_at)) / 1000;
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export type Reconciliation = { credited: bigint; spent: bigint; agrees: boolean };

/** The payments that are final, against what the contract says the job has spent. */
export function reconcile(job: Job, payments: readonly Payment[]): Reconciliation {
  const credited = sum(
    payments.filter((payment) => payment.state === 'final').map((payment) => payment.amount ?? '0'),
  );
  const spent = BigInt(job.spent);
  return { credited, spent, agrees: credited === spent };
}
