import { describe, expect, it } from 'vitest';
import { assignment, contribution, job, payment, round } from '@/test/fixtures';
import { accuracyCurve, lossCurves } from './curves';
import { etaOf } from './eta';
import { currentPhase, isFinal, type Phase, phasesOf } from './phases';

const told = (phases: Phase[]) => phases.map(({ state, detail }) => `${state}${detail ? ` ${detail}` : ''}`);

describe('the phases of a round', () => {
  it('begin open, with the slots that are taken', () => {
    const assignments = [assignment(0, 1, { state: 'open' }), assignment(0, 2)];
    const phases = phasesOf({ round: round(0), assignments, contributions: [], payments: [] });
    expect(told(phases).slice(0, 3)).toEqual(['active 1 of 2 taken', 'active 0 of 2 handed in', 'waiting']);
  });

  it('count what is handed in and scored while it trains', () => {
    const contributions = [contribution(0, 1), contribution(0, 2, { state: 'checked' })];
    const phases = phasesOf({
      round: round(0),
      assignments: [assignment(0, 1), assignment(0, 2)],
      contributions,
      payments: [],
    });
    expect(told(phases).slice(0, 3)).toEqual([
      'done 2 of 2 taken',
      'active 2 of 2 handed in',
      'active 1 of 2 scored',
    ]);
    expect(currentPhase(phases)?.name).toBe('Scoring');
  });

  it('are final when every payment is', () => {
    const contributions = [contribution(0, 1), contribution(0, 2, { state: 'rejected' })];
    const settled = { round: round(0, { state: 'settled' }), assignments: [], contributions };
    const sent = phasesOf({ ...settled, payments: [payment(0, 1, { state: 'included' })] });
    expect([isFinal(sent), told(sent).slice(4)]).toEqual([false, ['done 1 of 1 sent', 'active 0 of 1 paid']]);
    expect(isFinal(phasesOf({ ...settled, payments: [payment(0, 1, { state: 'final' })] }))).toBe(true);
  });

  it('say when there is nothing to pay, and when a payment or a round failed', () => {
    const none = { assignments: [], contributions: [], payments: [] };
    expect(phasesOf({ ...none, round: round(0, { state: 'settled' }) }).at(-1)?.detail).toBe(
      'nothing to pay',
    );
    const failed = phasesOf({
      ...none,
      round: round(0, { state: 'aggregated' }),
      payments: [payment(0, 1, { state: 'failed' })],
    });
    expect(failed[4]).toMatchObject({ state: 'failed', detail: 'a payment failed' });
    expect(phasesOf({ ...none, round: round(0, { state: 'abandoned' }) })[3]?.state).toBe('failed');
  });
});

describe('the time left', () => {
  const rounds = [0, 1].map((n) =>
    round(n, {
      state: 'settled',
      opened_at: new Date(n * 20_000).toISOString(),
      aggregated_at: new Date(n * 20_000 + (n ? 12_000 : 8_000)).toISOString(),
    }),
  );

  it('is a range of what recent rounds took', () => {
    expect(etaOf(job({ round: 2, rounds: 4 }), rounds, 40_000)).toEqual({ from: 16, to: 24, rounds: 2 });
  });

  it('counts what the open round has used, and never goes below zero', () => {
    const open = round(2, { opened_at: new Date(40_000).toISOString() });
    expect(etaOf(job({ round: 2, rounds: 4 }), [...rounds, open], 45_000)).toEqual({
      from: 11,
      to: 19,
      rounds: 2,
    });
    expect(etaOf(job({ round: 3, rounds: 4 }), [...rounds, open], 95_000)).toEqual({
      from: 0,
      to: 0,
      rounds: 2,
    });
  });

  it('is unknown before the first round and after the last', () => {
    expect(etaOf(job(), [round(0)], 0)).toBeNull();
    expect(etaOf(job({ state: 'completed', round: 12 }), rounds, 0)).toBeNull();
  });
});

describe('the curves', () => {
  it('put evaluation at the ends of rounds and training losses within them', () => {
    const rounds = [round(0, { metric: { loss: 1.5, accuracy: 0.6 } }), round(1)];
    const curves = lossCurves(job(), rounds, [assignment(0, 1), assignment(1, 1)], new Map([[1, 'falcon']]));
    expect(curves.lines.map((line) => line.label)).toEqual(['falcon', 'evaluation']);
    expect(curves.lines[1]?.points).toEqual({ x: [0, 1], y: [2.31, 1.5] });
    const [first] = curves.lines;
    expect(first?.points.y).toEqual([null, 2.3, 2.2, null, 2.3, 2.2]);
    expect(first?.points.x.every((x, at, all) => at === 0 || x > (all[at - 1] as number))).toBe(true);
    expect(curves.points).toBe(6);
  });

  it('draw fewer points than there are when there are very many, and say so', () => {
    const losses = Array.from({ length: 64 }, (_, step): [number, number] => [step, Math.sin(step)]);
    const many = Array.from({ length: 200 }, (_, n) => assignment(n, 1, { steps: 64, losses }));
    const curves = lossCurves(job({ rounds: 200 }), [], many, new Map());
    expect(curves.points).toBe(200 * 64 + 1);
    expect(curves.hidden).toBeGreaterThan(0);
    expect(Math.max(...(curves.lines[0]?.points.y.filter((y) => y !== null) ?? []))).toBe(
      Math.max(...losses.map(([, y]) => y)),
    );
  });

  it('show the target beside the metric that it is about', () => {
    const rounds = [round(0, { metric: { loss: 1.5, accuracy: 0.6 } })];
    expect(accuracyCurve(job(), rounds).lines.map((line) => line.label)).toEqual(['evaluation', 'target']);
    expect(lossCurves(job(), rounds, [], new Map()).lines.map((line) => line.label)).toEqual(['evaluation']);
  });
});
