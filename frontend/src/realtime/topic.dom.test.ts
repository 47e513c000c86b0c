import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { fetchEvents } from '@/api/endpoints';
import type { EventPage, EventRecord } from '@/api/types';
import { job } from '@/test/fixtures';
import { entitiesOf } from './entities';
import type { ClientFrame, Link, LiveSocket, ServerFrame } from './socket';
import { TopicDriver } from './topic';

vi.mock('@/api/endpoints');

const event = (seq: number, spent: string): EventRecord => ({
  topic: 'job.1',
  epoch: 'e1',
  seq,
  type: 'job.changed',
  at: '2026-11-21T12:00:00Z',
  changes: { job: job({ spent }) },
});

/** A socket whose far end is the test. */
class Wire {
  link: Link = { state: 'connecting', rtt: null, since: null };
  sent: ClientFrame[] = [];
  listener = { frame: (_: ServerFrame) => {}, opened: () => {}, closed: () => {} };

  send(frame: ClientFrame) {
    this.sent.push(frame);
    return true;
  }
  listen(listener: Wire['listener']) {
    this.listener = listener;
    return () => {};
  }
}

describe('a topic', () => {
  let wire: Wire;
  let driver: TopicDriver;
  let stored = { spent: '0', seq: 0 };
  const load = vi.fn();
  const spent = () => driver.view.data.jobs.get(1)?.spent;
  const frames = () => vi.advanceTimersByTimeAsync(50);

  beforeEach(async () => {
    vi.useFakeTimers();
    stored = { spent: '0', seq: 0 };
    load.mockReset().mockImplementation(async () => ({
      data: entitiesOf({ job: job({ spent: stored.spent }) }),
      position: { topic: 'job.1', epoch: 'e1', seq: stored.seq },
    }));
    vi.mocked(fetchEvents).mockReset();
    wire = new Wire();
    driver = new TopicDriver('job.1', wire as unknown as LiveSocket, load);
    driver.start();
    await frames();
  });

  afterEach(() => {
    driver.stop();
    vi.useRealTimers();
  });

  async function subscribe() {
    wire.listener.opened();
    await frames();
    wire.listener.frame({ op: 'sub_ok', topic: 'job.1', epoch: 'e1', seq: stored.seq, mode: 'replay' });
    await frames();
  }

  it('publishes once for all that arrives between two frames', async () => {
    await subscribe();
    const published = vi.fn();
    driver.watch(published);
    for (let seq = 1; seq <= 30; seq++) wire.listener.frame({ op: 'pub', ...event(seq, String(seq)) });
    await frames();
    expect([spent(), published.mock.calls.length]).toEqual(['30', 1]);
  });

  it('finds a lost last message, which leaves no gap behind it', async () => {
    await subscribe();
    vi.mocked(fetchEvents).mockResolvedValue({ epoch: 'e1', seq: 1, events: [event(1, '6400')] });
    await vi.advanceTimersByTimeAsync(25_000);
    expect(fetchEvents).toHaveBeenCalledWith('job.1', 0);
    expect([spent(), driver.view.live]).toEqual(['6400', true]);
  });

  it('starts over when the audit finds another epoch', async () => {
    await subscribe();
    stored = { spent: '7', seq: 0 };
    vi.mocked(fetchEvents).mockResolvedValue({ epoch: 'e2', seq: 0, events: [] } satisfies EventPage);
    await vi.advanceTimersByTimeAsync(21_000);
    expect(spent()).toBe('7');
  });

  it('stays up to date over HTTP while there is no socket', async () => {
    stored = { spent: '9', seq: 3 };
    vi.mocked(fetchEvents).mockResolvedValue({ epoch: 'e1', seq: 3, events: [] });
    await vi.advanceTimersByTimeAsync(4_100);
    await frames();
    expect([spent(), driver.view.live]).toEqual(['9', false]);
  });

  it('tries a failed snapshot again, and shows what failed meanwhile', async () => {
    await subscribe();
    load.mockRejectedValueOnce(new Error('down'));
    stored = { spent: '5', seq: 4 };
    wire.listener.frame({ op: 'pub', ...event(4, '5') });
    await vi.advanceTimersByTimeAsync(100);
    expect([driver.view.error?.message, spent()]).toEqual(['down', '0']);
    await vi.advanceTimersByTimeAsync(2_000);
    expect([driver.view.error, spent()]).toEqual([null, '5']);
  });

  it('leaves its topic when it stops', () => {
    driver.stop();
    expect(wire.sent.at(-1)).toEqual({ op: 'unsub', topic: 'job.1' });
  });
});
