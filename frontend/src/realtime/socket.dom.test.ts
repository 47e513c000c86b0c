import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { backoff, LiveSocket } from './socket';

class FakeWebSocket {
  static OPEN = 1;
  static all: FakeWebSocket[] = [];
  readyState = 0;
  sent: { op: string; t: number }[] = [];
  onopen = () => {};
  onclose = () => {};
  onmessage = (_: { data: string }) => {};

  constructor(readonly url: string) {
    FakeWebSocket.all.push(this);
  }
  send(data: string) {
    this.sent.push(JSON.parse(data));
  }
  close() {
    this.readyState = 3;
    this.onclose();
  }
  open() {
    this.readyState = 1;
    this.onopen();
  }
}

const last = () => FakeWebSocket.all.at(-1) as FakeWebSocket;

describe('the socket', () => {
  let socket: LiveSocket;

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal('WebSocket', FakeWebSocket);
    FakeWebSocket.all = [];
    socket = new LiveSocket('ws://test');
    socket.start();
  });

  afterEach(() => {
    socket.stop();
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  it('reconnects for ever', () => {
    for (let attempt = 1; attempt <= 40; attempt++) {
      last().close();
      vi.advanceTimersByTime(30_000);
      expect(FakeWebSocket.all.length).toBe(attempt + 1);
    }
  });

  it('says since when it is offline, over all attempts', () => {
    last().open();
    const lost = Date.now();
    last().close();
    vi.advanceTimersByTime(60_000);
    expect(socket.link).toMatchObject({ state: 'offline', since: lost });
    last().open();
    expect(socket.link).toMatchObject({ state: 'open', since: null });
  });

  it('connects at once when the browser says that it is online again', () => {
    last().close();
    dispatchEvent(new Event('online'));
    expect(FakeWebSocket.all.length).toBe(2);
  });

  it('measures its round trip by pings, and answers those of the server', () => {
    last().open();
    const ping = last().sent.find((frame) => frame.op === 'ping');
    vi.advanceTimersByTime(40);
    last().onmessage({ data: JSON.stringify({ op: 'pong', t: ping?.t }) });
    expect(socket.link.rtt).toBeCloseTo(40);
    last().onmessage({ data: JSON.stringify({ op: 'ping', t: 7 }) });
    expect(last().sent.at(-1)).toEqual({ op: 'pong', t: 7 });
  });

  it('gives up a peer that has gone silent', () => {
    last().open();
    vi.advanceTimersByTime(45_000);
    expect(FakeWebSocket.all.length).toBeGreaterThan(1);
  });

  it('does not fall over what is no frame', () => {
    last().open();
    expect(() => last().onmessage({ data: 'not json' })).not.toThrow();
  });
});

describe('the wait before a reconnect', () => {
  it('is jittered between half a second and thirty', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.double({ min: 0, max: 0.999, noNaN: true }), (attempt, random) => {
        const wait = backoff(attempt, () => random);
        expect(wait).toBeGreaterThanOrEqual(500);
        expect(wait).toBeLessThanOrEqual(Math.min(30_000, 500 * 2 ** Math.min(attempt, 10)));
      }),
    );
  });
});
