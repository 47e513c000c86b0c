import type { Job, Round } from '@/api/types';

/** Seconds until a job's last round is aggregated: a range, from the fastest and slowest of its recent rounds. */
export type Eta = { from: number; to: number; rounds: number };

const RECENT = 6;

/** Null before the first round is aggregated, and when the job no longer runs. */
export function etaOf(job: Job, rounds: readonly Round[], now: number): Eta | null {
  if (job.state !== 'running' && job.state !== 'funded') return null;
  const spans = rounds
    .filter((round) => round.aggregated_at !== null)
    .sort((a, b) => b.number - a.number)
    .slice(0, RECENT)
    .map((round) => (Date.parse(round.aggregated_at as string) - Date.parse(round.opened_at)) / 1000);
  const left = job.rounds - job.round;
  if (spans.length === 0 || left <= 0) return null;
  const open = rounds.find((round) => round.aggregated_at === null);
  const spent = open ? Math.max(0, (now - Date.parse(open.opened_at)) / 1000) : 0;
  const rest = (span: number) => Math.max(0, span - spent) + span * (left - 1);
  return { from: rest(Math.min(...spans)), to: rest(Math.max(...spans)), rounds: spans.length };
}
