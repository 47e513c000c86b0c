/**
 * One topic's life as a pure state machine: subscribe, buffer, snapshot, apply, and start over on a gap or a new epoch.
 *
 * The socket may drop, repeat and reorder messages; `seq` makes each of these visible. Nothing here does I/O: `step`
 * returns what should be done, and `TopicDriver` does it.
 */

import type { EventRecord, StreamPosition } from '@/api/types';
import { applyEvent, applyGauge, type Entities, type Gauge } from './entities';

export type Phase = 'idle' | 'subscribing' | 'snapshotting' | 'live';

export type StreamState = {
  phase: Phase;
  /** Null until the first snapshot; kept, and shown as old, whenever the stream has to start over. */
  data: Entities | null;
  /** Where `data` stands. */
  epoch: string | null;
  seq: number;
  /** The newest sequence number heard of, and in which epoch: `head - seq` events are still missing. */
  head: number;
  headEpoch: string | null;
  buffer: readonly EventRecord[];
  /** Counts fetches, so that the answer to an abandoned one is recognised. */
  fetch: number;
  /** Whether the newest fetch has not been answered yet. */
  pending: boolean;
};

export type Input =
  | { type: 'begin' }
  | { type: 'connected' }
  | { type: 'disconnected' }
  | { type: 'sub_ok'; mode: 'replay' | 'snapshot'; epoch: string; seq: number }
  | { type: 'pub'; event: EventRecord }
  | { type: 'gauge'; gauge: Gauge }
  | { type: 'resync' }
  | { type: 'snapshot'; fetch: number; data: Entities; position: StreamPosition }
  | { type: 'behind' };

export type Effect =
  | { type: 'subscribe'; since: { epoch: string; seq: number } | null }
  | { type: 'fetch'; fetch: number };

export type Step = { state: StreamState; effects: Effect[] };

export const START: StreamState = {
  phase: 'idle',
  data: null,
  epoch: null,
  seq: 0,
  head: 0,
  headEpoch: null,
  buffer: [],
  fetch: 0,
  pending: false,
};

/** More than a snapshot's worth of buffered events means that something is wrong: fetch again instead of growing. */
const BUFFER_LIMIT = 5_000;

export function step(state: StreamState, input: Input): Step {
  switch (input.type) {
    case 'begin':
      return { state: { ...state, pending: true }, effects: [{ type: 'fetch', fetch: state.fetch }] };
    case 'connected':
      return subscribe(state);
    case 'disconnected':
      return { state: { ...state, phase: 'idle', buffer: [] }, effects: [] };
    case 'sub_ok':
      return subscribed(state, input);
    case 'pub':
      return published(state, input.event);
    case 'gauge':
      return {
        state: state.data ? { ...state, data: applyGauge(state.data, input.gauge) } : state,
        effects: [],
      };
    case 'resync':
    case 'behind':
      return state.phase === 'idle' ? { state, effects: [] } : fetchAgain(state, []);
    case 'snapshot':
      return loaded(state, input);
  }
}

function subscribe(state: StreamState): Step {
  const since = state.data && state.epoch !== null ? { epoch: state.epoch, seq: state.seq } : null;
  return { state: { ...state, phase: 'subscribing', buffer: [] }, effects: [{ type: 'subscribe', since }] };
}

function subscribed(state: StreamState, { mode, epoch, seq }: Extract<Input, { type: 'sub_ok' }>): Step {
  if (state.phase !== 'subscribing') return { state, effects: [] };
  const next = { ...state, head: seq, headEpoch: epoch };
  const held = state.data !== null && state.epoch === epoch;
  if (held && (mode === 'replay' || state.seq >= seq)) return drain({ ...next, phase: 'live' });
  // A fetch that began before the subscription will do, if it turns out to hold all up to `seq`.
  if (state.pending) return { state: { ...next, phase: 'snapshotting' }, effects: [] };
  return fetchAgain(next, state.buffer);
}

function published(state: StreamState, event: EventRecord): Step {
  if (state.phase === 'idle') return { state, effects: [] };
  if (state.phase !== 'live') {
    if (state.buffer.length >= BUFFER_LIMIT) return fetchAgain(state, [event]);
    return { state: { ...state, buffer: [...state.buffer, event] }, effects: [] };
  }
  if (event.epoch !== state.epoch) {
    return fetchAgain({ ...state, head: event.seq, headEpoch: event.epoch }, [event]);
  }
  return drain({ ...state, head: Math.max(state.head, event.seq), buffer: [event] });
}

function loaded(state: StreamState, { fetch, data, position }: Extract<Input, { type: 'snapshot' }>): Step {
  if (fetch !== state.fetch) return { state, effects: [] };
  if (state.phase === 'live') return { state: { ...state, pending: false }, effects: [] };
  const { epoch, seq } = position;
  // Something of another epoch was heard meanwhile: the server started over, before or after this snapshot was read.
  const heard = [state.headEpoch ?? epoch, ...state.buffer.map((event) => event.epoch)];
  const foreign = heard.some((other) => other !== epoch);
  const head = foreign ? seq : Math.max(state.head, seq);
  const next = { ...state, data, epoch, seq, head, headEpoch: epoch, pending: false };
  // Without a socket the snapshot is still the newest that there is: show it, and stay as we are.
  if (state.phase !== 'snapshotting') return { state: next, effects: [] };
  const result = drain({ ...next, phase: 'live' });
  const behind = foreign || result.state.seq < result.state.head;
  return behind && result.state.phase === 'live' ? fetchAgain(result.state, []) : result;
}

/** Applies the buffered events that follow on from `seq`; a hole between them means that one was lost. */
function drain(state: StreamState): Step {
  let { data, seq } = state;
  const waiting = state.buffer.filter((event) => event.epoch === state.epoch).sort((a, b) => a.seq - b.seq);
  let position = 0;
  for (; position < waiting.length; position++) {
    const event = waiting[position] as EventRecord;
    if (event.seq <= seq) continue;
    if (event.seq > seq + 1) break;
    data = applyEvent(data as Entities, event);
    seq = event.seq;
  }
  const head = Math.max(seq, state.head, ...waiting.map((event) => event.seq));
  const next: StreamState = { ...state, data, seq, head, buffer: [] };
  const left = waiting.slice(position);
  return left.length ? fetchAgain(next, left) : { state: next, effects: [] };
}

function fetchAgain(state: StreamState, buffer: readonly EventRecord[]): Step {
  const fetch = state.fetch + 1;
  return {
    state: { ...state, phase: 'snapshotting', buffer, fetch, pending: true },
    effects: [{ type: 'fetch', fetch }],
  };
}
