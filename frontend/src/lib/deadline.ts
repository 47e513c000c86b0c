import type { Job } from '@/api/types';
import { duration } from './format';

/** The moment that a `datetime-local` input names in this browser's zone, as RFC 3339; null when it names none. */
export function momentOf(local: string): string | null {
  const moment = local === '' ? Number.NaN : new Date(local).getTime();
  return Number.isNaN(moment) ? null : new Date(moment).toISOString();
}

type Standing = { tone: 'ok' | 'warn' | 'bad'; text: string };

/** How a job stands to its deadline: `eta` are the seconds that are left at its pace, null when nothing can be said. */
export function standingOf(job: Job, eta: { from: number; to: number } | null, now: number): Standing | null {
  if (job.finish_by === null) return null;
  const due = Date.parse(job.finish_by);
  const end = job.completed_at ? Date.parse(job.completed_at) : null;
  if (end !== null) {
    const off = duration(Math.abs(due - end) / 1000);
    return end <= due ? { tone: 'ok', text: `${off} early` } : { tone: 'bad', text: `${off} late` };
  }
  const left = (due - now) / 1000;
  if (left <= 0) return { tone: 'bad', text: `${duration(-left)} ago, it goes on` };
  if (eta === null || eta.to <= left) return { tone: 'ok', text: `in ${duration(left)}` };
  const late = `in ${duration(left)}, ${eta.from > left ? 'missed' : 'in danger'} at this pace`;
  return { tone: eta.from > left ? 'bad' : 'warn', text: late };
}
