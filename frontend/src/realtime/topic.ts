/** Runs one topic's state machine against the socket and the HTTP interface, and publishes once per animation frame. */

import { fetchEvents } from '@/api/endpoints';
import type { EventPage, StreamPosition } from '@/api/types';
import { type Entities, NOTHING } from './entities';
import { backoff, type LiveSocket, type ServerFrame } from './socket';
import { type Effect, type Input, START, type StreamState, step } from './stream';

export type Loaded = { data: Entities; position: StreamPosition };
export type Loader = () => Promise<Loaded>;

export type TopicView = {
  data: Entities;
  /** True from the first snapshot on. */
  ready: boolean;
  /** True when nothing is known to be missing. */
  live: boolean;
  /** Events known to exist and not applied yet. */
  missing: number;
  error: Error | null;
};

const EMPTY: TopicView = { data: NOTHING, ready: false, live: false, missing: 0, error: null };

/** How often a stream is compared with the server: a lost last message leaves no gap behind it to notice. */
const AUDIT_MS = 20_000;
/** How often events are fetched over HTTP while no socket can be had. */
const POLL_MS = 4_000;

export class TopicDriver {
  view: TopicView = EMPTY;
  private state: StreamState = START;
  private queue: Input[] = [];
  private frame = 0;
  private error: Error | null = null;
  private attempt = 0;
  private stopListening: () => void = () => {};
  private timers = new Set<ReturnType<typeof setTimeout>>();
  private readonly watchers = new Set<() => void>();
  private readonly topic: string;
  private readonly socket: LiveSocket;
  private readonly load: Loader;

  constructor(topic: string, socket: LiveSocket, load: Loader) {
    this.topic = topic;
    this.socket = socket;
    this.load = load;
  }

  start(): void {
    this.stopListening = this.socket.listen({
      frame: (frame) => this.received(frame),
      opened: () => this.push({ type: 'connected' }),
      closed: () => this.push({ type: 'disconnected' }),
    });
    // The snapshot is wanted anyway: it travels while the socket still connects.
    this.push({ type: 'begin' });
    this.audit();
  }

  stop(): void {
    this.stopListening();
    this.socket.send({ op: 'unsub', topic: this.topic });
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.frame);
    this.queue = [];
    this.state = START;
    this.frame = 0;
  }

  watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  };

  /** Throws the snapshot away and fetches it again, for the retry button of a page that could not load. */
  retry = (): void => {
    this.attempt = 0;
    if (this.state.phase === 'idle') this.fetch(this.state.fetch);
    else this.push({ type: 'behind' });
  };

  private received(frame: ServerFrame): void {
    if (!('topic' in frame) || frame.topic !== this.topic) return;
    if (frame.op === 'sub_ok')
      this.push({ type: 'sub_ok', mode: frame.mode, epoch: frame.epoch, seq: frame.seq });
    else if (frame.op === 'pub') this.push({ type: 'pub', event: frame });
    else if (frame.op === 'gauge') this.push({ type: 'gauge', gauge: frame });
    else if (frame.op === 'resync') this.push({ type: 'resync' });
  }

  private push(input: Input): void {
    this.queue.push(input);
    if (this.frame) return;
    // A hidden page has no animation frames; it still has to keep up, more slowly.
    this.frame = document.hidden
      ? (setTimeout(this.flush, 500) as unknown as number)
      : requestAnimationFrame(this.flush);
  }

  private readonly flush = (): void => {
    this.frame = 0;
    const inputs = this.queue;
    this.queue = [];
    const effects: Effect[] = [];
    for (const input of inputs) {
      const result = step(this.state, input);
      this.state = result.state;
      effects.push(...result.effects);
    }
    for (const effect of effects) this.run(effect);
    this.publish();
  };

  private run(effect: Effect): void {
    if (effect.type === 'subscribe') this.socket.send({ op: 'sub', topic: this.topic, since: effect.since });
    else if (effect.fetch === this.state.fetch) this.fetch(effect.fetch);
  }

  private fetch(number: number): void {
    this.load().then(
      ({ data, position }) => {
        if (number !== this.state.fetch) return;
        this.attempt = 0;
        this.error = null;
        this.push({ type: 'snapshot', fetch: number, data, position });
      },
      (error: unknown) => {
        if (number !== this.state.fetch) return;
        this.error = error instanceof Error ? error : new Error(String(error));
        this.publish();
        this.later(backoff(this.attempt++), () => {
          if (number === this.state.fetch) this.fetch(number);
        });
      },
    );
  }

  /** Asks the server over HTTP what came after `seq`: heals a lost last message, and stands in for a missing socket. */
  private audit(): void {
    const offline = this.state.phase === 'idle';
    this.later(offline ? POLL_MS : AUDIT_MS, () => {
      const { epoch, seq, phase } = this.state;
      const settle = () => this.audit();
      if (epoch === null || document.hidden) settle();
      else
        fetchEvents(this.topic, seq)
          .then((page) => this.audited(page, phase === 'idle'), ignore)
          .then(settle);
    });
  }

  private audited(page: EventPage, offline: boolean): void {
    const { phase, seq, epoch } = this.state;
    if (page.epoch === epoch && page.seq <= seq) return;
    // Without a socket a change is worth a fetch; with one, what it should have brought is taken from here instead.
    if (phase === 'idle' && offline) this.fetch(this.state.fetch);
    if (phase !== 'live') return;
    if (page.epoch !== epoch) this.push({ type: 'behind' });
    else for (const event of page.events) this.push({ type: 'pub', event });
  }

  private later(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      act();
    }, ms);
    this.timers.add(timer);
  }

  private publish(): void {
    const { data, phase, head, seq } = this.state;
    this.view = {
      data: data ?? NOTHING,
      ready: data !== null,
      live: phase === 'live' && seq >= head,
      missing: Math.max(0, head - seq),
      error: this.error,
    };
    for (const watcher of this.watchers) watcher();
  }
}

function ignore(): void {
  // The audit runs again in a moment; what failed is shown by the link and by the next fetch.
}
