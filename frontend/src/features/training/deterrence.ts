import type { Audit } from '@/api/types';
import { plural } from '@/lib/format';

const NB = '\u00a0';

/** A part of one as a percentage, with two digits that count. */
export function part(value: number): string {
  const percent = 100 * value;
  return `${percent === 0 || percent >= 10 ? Math.round(percent) : Number(percent.toPrecision(2))}${NB}%`;
}

/** "3 audits: 2 passed, 1 open". */
export function verdictsOf(audits: readonly Pick<Audit, 'state'>[]): string {
  if (audits.length === 0) return 'no audit yet';
  const open = (state: Audit['state']) => state === 'requested' || state === 'answered';
  const counts = (['passed', 'suspicious', 'failed', 'unanswered'] as const).map(
    (state) => [audits.filter((audit) => audit.state === state).length, state] as const,
  );
  const told = [...counts, [audits.filter((audit) => open(audit.state)).length, 'open'] as const]
    .filter(([n]) => n > 0)
    .map(([n, state]) => `${n} ${state}`);
  return `${plural(audits.length, 'audit')}: ${told.join(', ')}`;
}
