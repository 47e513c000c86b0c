import { describe, expect, it } from 'vitest';
import { assignment, job, node, payment } from '@/test/fixtures';
import { applyEvent, applyGauge, entitiesOf } from './entities';

describe('an event', () => {
  it('replaces the entities that it names and leaves the others as they are', () => {
    const before = entitiesOf({ job: job(), payments: [payment(0, 1), payment(0, 2)] });
    const after = applyEvent(before, { changes: { payments: [payment(0, 1, { state: 'final' })] } });
    expect(after.payments.get(301)?.state).toBe('final');
    expect(after.payments.get(302)?.state).toBe('queued');
    expect(after.jobs).toBe(before.jobs);
    expect(before.payments.get(301)?.state).toBe('queued');
  });

  it('equals a refetch: the same entities in any order of arrival of different kinds', () => {
    const start = entitiesOf({ job: job() });
    const events = [
      { changes: { payments: [payment(1, 1)] } },
      { changes: { job: job({ spent: '6400' }), nodes: [node(1)] } },
    ];
    const applied = events.reduce(applyEvent, start);
    expect(applied).toEqual(
      entitiesOf({ job: job({ spent: '6400' }), nodes: [node(1)], payments: [payment(1, 1)] }),
    );
  });
});

describe('a gauge', () => {
  const at = '2026-11-21T12:00:00Z';

  it('moves progress forward and never backward', () => {
    const before = entitiesOf({ assignments: [assignment(0, 1, { step: 10 })] });
    const late = applyGauge(before, { at, changes: { assignments: [assignment(0, 1, { step: 4 })] } });
    expect(late).toBe(before);
    const next = applyGauge(before, { at, changes: { assignments: [assignment(0, 1, { step: 12 })] } });
    expect(next.assignments.get(101)?.step).toBe(12);
  });

  it('cannot undo a fact', () => {
    const before = entitiesOf({ assignments: [assignment(0, 1, { state: 'handed_in', step: 40 })] });
    const after = applyGauge(before, {
      at,
      changes: { assignments: [assignment(0, 1, { state: 'leased', step: 40 })] },
    });
    expect(after.assignments.get(101)?.state).toBe('handed_in');
  });

  it('of an older attempt, of an older heartbeat or of a retired node changes nothing', () => {
    const seen = { last_seen: '2026-11-21T12:00:05Z' };
    const before = entitiesOf({
      assignments: [assignment(0, 1, { attempt: 2, step: 0 })],
      nodes: [node(1, { ...seen, state: 'offline' }), node(2, { state: 'retired' })],
    });
    const stale = [
      node(1, { last_seen: '2026-11-21T12:00:04.900000Z' }),
      node(2, { last_seen: '2026-11-21T13:00:00Z' }),
    ];
    expect(
      applyGauge(before, {
        at,
        changes: { assignments: [assignment(0, 1, { attempt: 1, step: 30 })], nodes: stale },
      }),
    ).toBe(before);
  });

  it('never carries money', () => {
    const before = entitiesOf({ nodes: [node(1, { earned: '500' })] });
    const news = node(1, { earned: '100', last_seen: '2026-11-21T12:00:09.123456Z', measured: {} });
    const after = applyGauge(before, { at, changes: { nodes: [news] } });
    expect([after.nodes.get(1)?.earned, after.nodes.get(1)?.measured]).toEqual(['500', {}]);
  });
});
