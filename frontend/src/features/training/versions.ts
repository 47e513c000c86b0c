import type { Contribution, Job, Network, Round } from '@/api/types';

/** Bytes that one node sends in a round (the mean of those that did) and fetches after it. */
export type Traffic = { up: number | null; senders: number; down: number | null };

export function trafficOf(
  round: Pick<Round, 'number' | 'after'>,
  contributions: readonly Contribution[],
): Traffic {
  const sizes = contributions.filter((one) => one.round === round.number).map((one) => one.bytes);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  return {
    up: sizes.length ? Math.round(total / sizes.length) : null,
    senders: sizes.length,
    down: round.after?.delta_bytes || null,
  };
}

/** What a stranger types to replay every aggregation of the job. */
export function auditCommand(
  job: Pick<Job, 'chain_id'>,
  { chain, contracts }: Pick<Network, 'chain' | 'contracts'>,
  origin: string,
): string {
  return `hypergpu audit ${job.chain_id ?? 'JOB'} --rpc ${chain.rpc_url} --contract ${contracts.market} --coordinator ${origin}`;
}
