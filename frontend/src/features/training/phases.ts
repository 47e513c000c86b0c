/** Where a round stands, from its own rows: six phases with real counts. */

import type { Assignment, Contribution, Payment, Round } from '@/api/types';

export type PhaseState = 'waiting' | 'active' | 'done' | 'failed';
export type Phase = { name: string; state: PhaseState; detail: string; percent: number };

type Rows = {
  round: Round;
  assignments: readonly Assignment[];
  contributions: readonly Contribution[];
  payments: readonly Payment[];
};

const ABANDONED: Phase = {
  name: 'Aggregating',
  state: 'failed',
  detail: 'too few contributions',
  percent: 100,
};

const SENT = new Set(['sent', 'included', 'final']);

/** open, training, scoring, aggregating, settling, final. All rows are of this round. */
export function phasesOf({ round, assignments, contributions, payments }: Rows): Phase[] {
  const closed = round.state !== 'open';
  const taken = assignments.filter((assignment) => assignment.state !== 'open').length;
  const scored = contributions.filter(({ state }) => state === 'accepted' || state === 'rejected').length;
  const accepted = contributions.filter((contribution) => contribution.state === 'accepted').length;
  const sent = payments.filter((payment) => SENT.has(payment.state)).length;
  const final = payments.filter((payment) => payment.state === 'final').length;
  const failed = payments.some((payment) => payment.state === 'failed');
  const settled = round.state === 'settled';
  const due = Math.max(payments.length, accepted);
  const aggregated = round.state === 'aggregated' || settled;
  return [
    phase(
      'Open',
      taken,
      round.expected,
      closed || (round.expected > 0 && taken >= round.expected),
      true,
      'taken',
    ),
    phase('Training', contributions.length, round.expected, closed, taken > 0, 'handed in'),
    phase(
      'Scoring',
      scored,
      contributions.length,
      closed && scored === contributions.length,
      contributions.length > 0,
      'scored',
    ),
    round.state === 'abandoned'
      ? ABANDONED
      : {
          name: 'Aggregating',
          state: aggregated ? 'done' : round.state === 'aggregating' ? 'active' : 'waiting',
          detail: aggregated
            ? `${accepted} in the outer step`
            : round.state === 'aggregating'
              ? `${accepted} contributions`
              : '',
          percent: aggregated ? 100 : 0,
        },
    {
      ...phase('Settling', sent, due, settled || (due > 0 && sent === due), aggregated, 'sent'),
      ...(failed ? { state: 'failed' as const, detail: 'a payment failed' } : {}),
    },
    due === 0 && settled
      ? { name: 'Final', state: 'done', detail: 'nothing to pay', percent: 100 }
      : phase('Final', final, due, settled && final === due, sent > 0, 'paid'),
  ];
}

function phase(
  name: string,
  done: number,
  of: number,
  finished: boolean,
  started: boolean,
  verb: string,
): Phase {
  const state = finished ? 'done' : started ? 'active' : 'waiting';
  const detail = of > 0 && state !== 'waiting' ? `${done} of ${of} ${verb}` : '';
  return { name, state, detail, percent: finished ? 100 : of > 0 ? (100 * done) / of : 0 };
}

/** The phase that a listener should hear of: the last one under way. */
export function currentPhase(phases: readonly Phase[]): Phase | undefined {
  return phases.findLast((phase) => phase.state === 'active' || phase.state === 'failed') ?? phases.at(-1);
}

export function isFinal(phases: readonly Phase[]): boolean {
  return phases.at(-1)?.state === 'done';
}
