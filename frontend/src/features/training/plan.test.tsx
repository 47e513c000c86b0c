import { render, screen, within } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import { errorOf } from '@/lib/parts';
import { NOTHING } from '@/realtime/entities';
import { assignment, node, round } from '@/test/fixtures';
import { RoundPlan } from './RoundPlan';

const PLAN = {
  policy: 'adaptive' as const,
  quorum: 2,
  deadline_seconds: 12,
  predicted_seconds: 9,
  steps: 78,
  most_steps: 80,
  reasons: [{ code: 'deadline.predicted', text: 'The round closes after 12.0 s with 2 of 2.' }],
  excluded: [{ node_id: 3, code: 'health.excluded', text: 'Left out until round 9.' }],
  seating: [
    { node_id: 1, taken: true, code: 'assign.taken', text: 'Taken (cheapest first).' },
    { node_id: 4, taken: false, code: 'assign.less_time', text: 'Job 7 has less time to spare.' },
  ],
  health: [],
};
const PREDICTED = { fetch_s: 1, compute_s: 4, upload_s: 3, doubt_s: 1, overhead_s: 0 };
const ACTUAL = { fetch_s: 1, compute_s: 6, upload_s: 3 };

function page(shown: number | null) {
  const reasons = [{ code: 'steps.together', text: '20 local steps where 40 are the job’s.' }];
  const entities = {
    ...NOTHING,
    nodes: new Map([[1, node(1)]]),
    rounds: new Map([
      [10, round(0, { plan: PLAN })],
      [11, round(1, { plan: { ...PLAN, deadline_seconds: 33 } })],
    ]),
    assignments: new Map([
      [1, assignment(0, 1, { steps: 20, reasons, predicted: PREDICTED, actual: ACTUAL })],
      [2, assignment(1, 1, { origin: 0, steps: 20 })],
    ]),
  };
  render(<RoundPlan entities={entities} round={shown} />);
}

describe('how a round was planned', () => {
  it('shows each part with its reasons, and predicted beside measured', () => {
    page(0);
    const row = screen.getByTestId('part');
    expect(within(row).getByText('20 steps, int4')).toBeInTheDocument();
    expect(within(row).getByText('+25 %')).toBeInTheDocument();
    expect(within(row).getByText(/20 local steps where 40/)).toBeInTheDocument();
    expect(screen.getByTestId('round-close')).toHaveTextContent('78 of at most 80 steps · done in about 9');
    expect(screen.getByTestId('excluded')).toHaveTextContent('has no part: Left out until round 9.');
  });

  it('says why these nodes have a place, and why others have none', () => {
    page(0);
    const rows = within(screen.getByTestId('seating')).getAllByRole('listitem');
    expect(rows.map((row) => row.textContent)).toEqual([
      expect.stringContaining('gpu-1 has a place: Taken'),
      expect.stringContaining('was passed over: Job 7 has less time'),
    ]);
  });

  it('shows the newest round when none is chosen, and says of which round late work is', () => {
    page(null);
    expect(screen.getByTestId('round-close')).toHaveTextContent('closes after 33');
    expect(screen.getByText('of round 0')).toBeInTheDocument();
  });

  it('does not invent an error where nothing was measured', () => {
    expect(errorOf(PREDICTED, null)).toBeNull();
    expect(errorOf(PREDICTED, ACTUAL)).toBeCloseTo(0.25);
  });
});
