import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EventRecord } from '@/api/types';
import { contribution, job, payment, round } from '@/test/fixtures';
import { applyEvent, type Entities, entitiesOf, NOTHING } from './entities';
import { type Input, START, type StreamState, step } from './stream';

const EPOCH = 'e1';
const event = (seq: number, spent: number, epoch = EPOCH): EventRecord => ({
  topic: 'job.1',
  epoch,
  seq,
  type: 'job.changed',
  at: '2026-11-21T12:00:00Z',
  changes: { job: job({ spent: String(spent) }) },
});
const snapshot = (fetch: number, seq: number, spent: number, epoch = EPOCH): Input => ({
  type: 'snapshot',
  fetch,
  data: entitiesOf({ job: job({ spent: String(spent) }) }),
  position: { topic: 'job.1', epoch, seq },
});
const spent = (state: StreamState) => state.data?.jobs.get(1)?.spent;

function play(...inputs: Input[]): StreamState {
  return inputs.reduce((state, input) => step(state, input).state, START);
}

const SUBSCRIBED: Input[] = [
  { type: 'connected' },
  { type: 'sub_ok', mode: 'snapshot', epoch: EPOCH, seq: 5 },
];

describe('a stream', () => {
  it('subscribes before it fetches, and asks for nothing twice', () => {
    const first = step(START, { type: 'connected' });
    expect(first.effects).toEqual([{ type: 'subscribe', since: null }]);
    const second = step(first.state, { type: 'sub_ok', mode: 'snapshot', epoch: EPOCH, seq: 5 });
    expect(second.effects).toEqual([{ type: 'fetch', fetch: 1 }]);
  });

  it('drops buffered events that the snapshot already holds and applies the rest', () => {
    const state = play(
      ...SUBSCRIBED,
      { type: 'pub', event: event(5, 50) },
      { type: 'pub', event: event(6, 60) },
      snapshot(1, 5, 50),
    );
    expect([state.phase, state.seq, spent(state)]).toEqual(['live', 6, '60']);
  });

  it('fetches again on a gap, and keeps what came after it', () => {
    const live = play(...SUBSCRIBED, snapshot(1, 5, 50));
    const gap = step(live, { type: 'pub', event: event(7, 70) });
    expect(gap.effects).toEqual([{ type: 'fetch', fetch: 2 }]);
    const healed = step(gap.state, snapshot(2, 6, 60)).state;
    expect([healed.phase, healed.seq, spent(healed)]).toEqual(['live', 7, '70']);
  });

  it('shows the old data while it heals', () => {
    const live = play(...SUBSCRIBED, snapshot(1, 5, 50));
    expect(spent(step(live, { type: 'pub', event: event(9, 90) }).state)).toBe('50');
  });

  it('ignores repeated and late events', () => {
    const state = play(
      ...SUBSCRIBED,
      snapshot(1, 5, 50),
      { type: 'pub', event: event(6, 60) },
      { type: 'pub', event: event(5, 50) },
    );
    expect([state.seq, spent(state)]).toEqual([6, '60']);
  });

  it('starts over when the epoch changes', () => {
    const live = play(...SUBSCRIBED, snapshot(1, 5, 50));
    const changed = step(live, { type: 'pub', event: event(1, 10, 'e2') });
    expect(changed.effects).toEqual([{ type: 'fetch', fetch: 2 }]);
    const healed = step(changed.state, snapshot(2, 1, 10, 'e2')).state;
    expect([healed.epoch, healed.seq, spent(healed)]).toEqual(['e2', 1, '10']);
  });

  it('resumes from where it stood after a reconnect, without a fetch', () => {
    const live = play(...SUBSCRIBED, snapshot(1, 5, 50));
    const lost = step(live, { type: 'disconnected' }).state;
    const back = step(lost, { type: 'connected' });
    expect(back.effects).toEqual([{ type: 'subscribe', since: { epoch: EPOCH, seq: 5 } }]);
    const replay = step(back.state, { type: 'sub_ok', mode: 'replay', epoch: EPOCH, seq: 7 });
    expect(replay.effects).toEqual([]);
    const state = [event(6, 60), event(7, 70)].reduce(
      (s, e) => step(s, { type: 'pub', event: e }).state,
      replay.state,
    );
    expect([state.phase, state.seq, state.head, spent(state)]).toEqual(['live', 7, 7, '70']);
  });

  it('fetches when a replay is promised for another epoch', () => {
    const lost = step(play(...SUBSCRIBED, snapshot(1, 5, 50)), { type: 'disconnected' }).state;
    const back = step(lost, { type: 'connected' }).state;
    expect(step(back, { type: 'sub_ok', mode: 'replay', epoch: 'e2', seq: 9 }).effects).toEqual([
      { type: 'fetch', fetch: 2 },
    ]);
  });

  it('ignores the answer to a fetch that it gave up', () => {
    const gap = play(...SUBSCRIBED, snapshot(1, 5, 50), { type: 'pub', event: event(7, 70) });
    expect(step(gap, snapshot(1, 5, 50)).state).toBe(gap);
  });

  it('looks once more when events of another epoch came while it fetched', () => {
    const foreign = play(...SUBSCRIBED, { type: 'pub', event: event(1, 10, 'e2') });
    expect(step(foreign, snapshot(1, 5, 50)).effects).toEqual([{ type: 'fetch', fetch: 2 }]);
  });

  it('makes do with one fetch when the page opens, if that holds all that was missed before the subscription', () => {
    const early = play({ type: 'begin' }, { type: 'connected' });
    const subscribed = step(early, { type: 'sub_ok', mode: 'snapshot', epoch: EPOCH, seq: 5 });
    expect(subscribed.effects).toEqual([]);
    const enough = step(subscribed.state, snapshot(0, 5, 50));
    expect([enough.state.phase, enough.effects]).toEqual(['live', []]);
    expect(step(subscribed.state, snapshot(0, 4, 40)).effects).toEqual([{ type: 'fetch', fetch: 1 }]);
  });

  it('needs no fetch at all when the snapshot came between asking and being subscribed', () => {
    const early = play({ type: 'begin' }, { type: 'connected' }, snapshot(0, 5, 50));
    const ok = step(early, { type: 'sub_ok', mode: 'snapshot', epoch: EPOCH, seq: 5 });
    expect([ok.state.phase, ok.effects]).toEqual(['live', []]);
  });

  it('shows a snapshot that arrives while there is no socket', () => {
    const state = play({ type: 'begin' }, snapshot(0, 5, 50));
    expect([state.phase, spent(state)]).toEqual(['idle', '50']);
  });
});

/** A log of real changes: payments that move through their states, rounds that open, a job whose spending grows. */
const changes = fc.oneof(
  fc
    .record({
      number: fc.nat(4),
      node: fc.integer({ min: 1, max: 3 }),
      state: fc.constantFrom('queued', 'sent', 'included', 'final'),
    })
    .map(({ number, node, state }) => ({ payments: [payment(number, node, { state: state as 'queued' })] })),
  fc
    .record({ number: fc.nat(4), state: fc.constantFrom('open', 'aggregating', 'aggregated', 'settled') })
    .map(({ number, state }) => ({
      rounds: [round(number, { state: state as 'open' })],
    })),
  fc
    .record({ spent: fc.bigInt({ min: 0n, max: 10n ** 20n }), node: fc.integer({ min: 1, max: 3 }) })
    .map((row) => ({
      job: job({ spent: String(row.spent) }),
      contributions: [contribution(0, row.node)],
    })),
);

type Fate = 'deliver' | 'drop' | 'duplicate' | 'delay';
const fates = fc.constantFrom<Fate>('deliver', 'deliver', 'deliver', 'drop', 'duplicate', 'delay');
const breaks = fc.constantFrom('none', 'none', 'none', 'none', 'reconnect', 'restart');
const story = fc.array(fc.record({ changes, fate: fates, slow: fc.boolean(), happens: breaks }), {
  maxLength: 40,
});

describe('any story of lost, repeated, late and reordered messages', () => {
  it('ends with what a refetch would show', () => {
    fc.assert(
      fc.property(story, (messages) => {
        const world = new World();
        for (const { changes, fate, slow, happens } of messages) world.next(changes, fate, slow, happens);
        world.settle();
        expect(world.client.data).toEqual(world.truth);
        expect(world.client.phase).toBe('live');
      }),
      { numRuns: 300 },
    );
  });
});

/** A server, a wire that misbehaves, and the state machine at its end. */
class World {
  truth: Entities = NOTHING;
  epoch = 1;
  log: EventRecord[] = [];
  client: StreamState = START;
  private late: EventRecord[] = [];
  /** A fetch under way, with what the server read when it was asked. */
  private fetching: { fetch: number; early: Input } | null = null;

  constructor() {
    this.input({ type: 'begin' });
    this.input({ type: 'connected' });
  }

  next(change: EventRecord['changes'], fate: Fate, slow: boolean, happens: string): void {
    if (happens === 'restart') this.restart();
    if (happens !== 'none') this.reconnect();
    this.truth = applyEvent(this.truth, { changes: change });
    const event = { ...eventOf(change), epoch: `e${this.epoch}`, seq: this.log.length + 1 };
    this.log.push(event);
    if (fate === 'delay') this.late.push(event);
    if (fate === 'deliver' || fate === 'duplicate') this.input({ type: 'pub', event });
    if (fate === 'duplicate') this.input({ type: 'pub', event });
    if (!slow) this.answer();
    if (this.late.length > 2) this.input({ type: 'pub', event: this.late.shift() as EventRecord });
  }

  /** The wire calms down: late messages come, fetches are answered, and the audit finds what nobody sent. */
  settle(): void {
    for (const event of this.late) this.input({ type: 'pub', event });
    this.answer();
    if (this.client.seq !== this.log.length || this.client.epoch !== `e${this.epoch}`)
      this.input({ type: 'behind' });
    for (let round = 0; round < 5 && this.fetching !== null; round++) this.answer();
  }

  private restart(): void {
    this.epoch++;
    this.log = [];
    this.late = [];
  }

  private reconnect(): void {
    this.late = [];
    this.input({ type: 'disconnected' });
    this.input({ type: 'connected' });
  }

  private input(input: Input): void {
    const result = step(this.client, input);
    this.client = result.state;
    for (const effect of result.effects) {
      if (effect.type === 'fetch') this.fetching = { fetch: effect.fetch, early: this.read(effect.fetch) };
      else this.subscribe(effect.since);
    }
  }

  private subscribe(since: { epoch: string; seq: number } | null): void {
    const epoch = `e${this.epoch}`;
    const replay = since !== null && since.epoch === epoch;
    this.input({ type: 'sub_ok', mode: replay ? 'replay' : 'snapshot', epoch, seq: this.log.length });
    if (replay) for (const event of this.log.slice(since.seq)) this.input({ type: 'pub', event });
  }

  /** Answers with what was read when the fetch was asked for, or with what is true now: servers may do either. */
  private answer(): void {
    if (this.fetching === null) return;
    const { fetch, early } = this.fetching;
    this.fetching = null;
    this.input(this.log.length % 2 ? early : this.read(fetch));
  }

  private read(fetch: number): Input {
    const position = { topic: 'job.1', epoch: `e${this.epoch}`, seq: this.log.length };
    return { type: 'snapshot', fetch, data: this.truth, position };
  }
}

function eventOf(change: EventRecord['changes']): EventRecord {
  return {
    topic: 'job.1',
    epoch: '',
    seq: 0,
    type: 'job.changed',
    at: '2026-11-21T12:00:00Z',
    changes: change,
  };
}
