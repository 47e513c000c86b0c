/** How long a job's escrow lasts. */

import type { Job } from '@/api/types';

/** Rounds below which the page warns, as the coordinator does. */
const LOW = 3;

/** Whether fewer rounds are covered than come, and few. */
export function runsLow({ state, runway, round, rounds }: Job): boolean {
  return state === 'running' && runway !== null && runway < Math.min(LOW, rounds - round);
}

/** Base units that cover the rounds that are left, at their most, beside what the escrow still holds; at least the shortfall. */
export function missingFor(job: Job, worstCase: bigint): bigint {
  const left = BigInt(Math.max(0, job.rounds - job.round));
  const needed = (worstCase * left) / BigInt(Math.max(1, job.rounds));
  const missing = needed - (BigInt(job.escrow) - BigInt(job.spent));
  const shortfall = BigInt(job.shortfall ?? '0');
  return missing > shortfall ? missing : shortfall;
}
