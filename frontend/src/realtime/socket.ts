/** The page's one socket: reconnects for ever, measures its round trip, hands frames to whoever subscribed. */

import type { Changes, EventRecord } from '@/api/types';

export type ServerFrame =
  | { op: 'sub_ok'; topic: string; epoch: string; seq: number; mode: 'replay' | 'snapshot' }
  | ({ op: 'pub' } & EventRecord)
  | { op: 'gauge'; topic: string; type: string; at: string; changes: Pick<Changes, 'assignments' | 'nodes'> }
  | { op: 'resync'; topic: string }
  | { op: 'ping' | 'pong'; t: number }
  | { op: 'error'; code: string; message: string };

export type ClientFrame =
  | { op: 'sub'; topic: string; since: { epoch: string; seq: number } | null }
  | { op: 'unsub'; topic: string }
  | { op: 'ping' | 'pong'; t: number };

export type Link = {
  state: 'connecting' | 'open' | 'offline';
  /** Median of the last five round trips, in ms. */
  rtt: number | null;
  /** When the link was lost, in ms since the epoch. */
  since: number | null;
};

type Listener = { frame: (frame: ServerFrame) => void; opened: () => void; closed: () => void };

const PING_MS = 10_000;
const SILENCE_MS = 25_000;
const BACKOFF_FLOOR_MS = 500;
const BACKOFF_CEILING_MS = 30_000;

/** Full jitter (Brooker, "Exponential Backoff and Jitter", 2015): anywhere between the floor and a doubling ceiling. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(BACKOFF_CEILING_MS, BACKOFF_FLOOR_MS * 2 ** Math.min(attempt, 10));
  return BACKOFF_FLOOR_MS + random() * (ceiling - BACKOFF_FLOOR_MS);
}

export class LiveSocket {
  link: Link = { state: 'connecting', rtt: null, since: null };
  private readonly url: string;
  private socket: WebSocket | null = null;
  private attempt = 0;
  private heard = 0;
  private trips: number[] = [];
  private retry: ReturnType<typeof setTimeout> | undefined;
  private pinger: ReturnType<typeof setInterval> | undefined;
  private readonly listeners = new Set<Listener>();
  private readonly watchers = new Set<() => void>();

  constructor(url: string) {
    this.url = url;
  }

  start(): void {
    addEventListener('online', this.retryNow);
    addEventListener('visibilitychange', this.retryNow);
    this.connect();
  }

  stop(): void {
    removeEventListener('online', this.retryNow);
    removeEventListener('visibilitychange', this.retryNow);
    clearTimeout(this.retry);
    clearInterval(this.pinger);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  send(frame: ClientFrame): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  listen(listener: Listener): () => void {
    this.listeners.add(listener);
    if (this.link.state === 'open') listener.opened();
    return () => this.listeners.delete(listener);
  }

  /** Calls back on each change of `link`. */
  watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  };

  private connect(): void {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onopen = () => this.opened();
    socket.onmessage = (message) => this.received(message.data);
    socket.onclose = () => this.closed(socket);
  }

  private opened(): void {
    this.heard = Date.now();
    this.update({ state: 'open', rtt: null, since: null });
    this.ping();
    clearInterval(this.pinger);
    this.pinger = setInterval(() => this.ping(), PING_MS);
    for (const listener of this.listeners) listener.opened();
  }

  private received(data: unknown): void {
    this.heard = Date.now();
    const frame = parseFrame(data);
    if (!frame) return;
    // Only an answering server resets the backoff: one that accepts and drops at once must not be hammered.
    this.attempt = 0;
    if (frame.op === 'ping') this.send({ op: 'pong', t: frame.t });
    else if (frame.op === 'pong') this.measured(performance.now() - frame.t);
    else for (const listener of this.listeners) listener.frame(frame);
  }

  private closed(socket: WebSocket): void {
    if (socket !== this.socket) return;
    this.socket = null;
    clearInterval(this.pinger);
    this.trips = [];
    this.update({ state: 'offline', rtt: null, since: this.link.since ?? Date.now() });
    for (const listener of this.listeners) listener.closed();
    this.retry = setTimeout(() => this.connect(), backoff(this.attempt++));
  }

  private readonly retryNow = (): void => {
    if (this.socket || document.hidden) return;
    clearTimeout(this.retry);
    this.connect();
  };

  private ping(): void {
    const socket = this.socket;
    if (socket && Date.now() - this.heard > SILENCE_MS) {
      // A dead peer may never answer the close either: stop listening to it first.
      this.closed(socket);
      socket.close();
      return;
    }
    this.send({ op: 'ping', t: performance.now() });
  }

  private measured(ms: number): void {
    this.trips = [...this.trips, ms].slice(-5);
    const sorted = [...this.trips].sort((a, b) => a - b);
    this.update({ ...this.link, rtt: sorted[Math.floor(sorted.length / 2)] ?? null });
  }

  private update(link: Link): void {
    this.link = link;
    for (const watcher of this.watchers) watcher();
  }
}

function parseFrame(data: unknown): ServerFrame | null {
  try {
    const frame: unknown = JSON.parse(String(data));
    return frame && typeof frame === 'object' && 'op' in frame ? (frame as ServerFrame) : null;
  } catch {
    return null;
  }
}
