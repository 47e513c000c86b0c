/** A stand-in for the server in tests: HTTP and socket over one store, with a log of events for each topic. */

import { HttpResponse, http, ws } from 'msw';
import { setupServer } from 'msw/node';
import type { Changes, EventRecord, Job } from '@/api/types';
import { applyEvent, type Entities, entitiesOf, NOTHING } from '@/realtime/entities';
import { deterrence, measurements, network, pairs } from './fixtures';

type Client = { send: (data: string) => void };

const socket = ws.link('ws://localhost:3000/ws/v1/events');

export class FakeServer {
  epoch = 'epoch-1';
  state: Entities = NOTHING;
  session: string | null = null;
  fetches = 0;
  posted: { path: string; body: unknown }[] = [];
  private readonly logs = new Map<string, EventRecord[]>();
  private readonly clients = new Map<Client, Set<string>>();

  constructor(start: Changes) {
    this.state = entitiesOf(start);
  }

  log(topic: string): EventRecord[] {
    const known = this.logs.get(topic) ?? [];
    this.logs.set(topic, known);
    return known;
  }

  position(topic: string) {
    return { topic, epoch: this.epoch, seq: this.log(topic).length };
  }

  /** Commits a change and tells who listens; `lost` never reaches the wire. */
  emit(topic: string, type: string, changes: Changes, { lost = false } = {}): EventRecord {
    this.state = applyEvent(this.state, { changes });
    const event = {
      topic,
      epoch: this.epoch,
      seq: this.log(topic).length + 1,
      type,
      at: new Date().toISOString(),
      changes,
    };
    this.log(topic).push(event);
    if (!lost) this.send(topic, { op: 'pub', ...event });
    return event;
  }

  send(topic: string, frame: object): void {
    for (const [client, topics] of this.clients) if (topics.has(topic)) client.send(JSON.stringify(frame));
  }

  /** What a crashed and restored server does: the log starts over under another name. */
  restart(): void {
    this.epoch = `${this.epoch}+`;
    this.logs.clear();
  }

  handlers() {
    return [
      socket.addEventListener('connection', ({ client }) => {
        this.clients.set(client, new Set());
        client.addEventListener('close', () => this.clients.delete(client));
        client.addEventListener('message', (message) =>
          this.received(client, JSON.parse(String(message.data))),
        );
      }),
      http.get('*/api/v1/network', () => HttpResponse.json(network)),
      http.get('*/api/v1/auth/session', () => {
        // biome-ignore lint/suspicious/noDocumentCookie: what Django's Set-Cookie would do
        document.cookie = 'csrftoken=token';
        return HttpResponse.json({ address: this.session });
      }),
      http.get('*/api/v1/jobs', () => this.snapshot('market', { jobs: this.list('jobs') })),
      http.get('*/api/v1/operators', () => this.snapshot('market', { nodes: this.list('nodes') })),
      http.get('*/api/v1/payments', () => HttpResponse.json({ payments: this.list('payments') })),
      http.get<{ id: string }>('*/api/v1/jobs/:id', ({ params }) => this.jobSnapshot(Number(params.id))),
      http.get<{ address: string }>('*/api/v1/operators/:address', ({ params }) =>
        this.snapshot(`operator.${params.address.toLowerCase()}`, {
          operator: { address: params.address, stake: '0', credit: '0', earned: '0' },
          nodes: this.list('nodes'),
          bids: this.list('bids'),
          payments: this.list('payments'),
          audits: this.list('audits'),
        }),
      ),
      http.get('*/api/v1/jobs/:id/deterrence', () => HttpResponse.json(deterrence())),
      http.get('*/api/v1/nodes/:id/measurements', () => HttpResponse.json({ measurements })),
      http.get('*/api/v1/pairs', () => HttpResponse.json({ measurements: pairs })),
      http.get('*/api/v1/events', ({ request }) => {
        const query = new URL(request.url).searchParams;
        const topic = query.get('topic') ?? '';
        const events = this.log(topic).filter((event) => event.seq > Number(query.get('since')));
        return HttpResponse.json({ ...this.position(topic), events });
      }),
      // No chain answers unless a test brings one.
      http.post('http://localhost:8545/', () => HttpResponse.error()),
      http.post('*/api/v1/*', async ({ request }) => {
        const path = new URL(request.url).pathname;
        this.posted.push({ path, body: await request.json() });
        return HttpResponse.json(
          { code: 'test.unexpected', message: `No test handler for ${path}.`, data: {} },
          { status: 404 },
        );
      }),
    ];
  }

  private received(
    client: Client,
    frame: { op: string; topic: string; t: number; since: { epoch: string; seq: number } | null },
  ) {
    if (frame.op === 'ping') client.send(JSON.stringify({ op: 'pong', t: frame.t }));
    if (frame.op === 'unsub') this.clients.get(client)?.delete(frame.topic);
    if (frame.op !== 'sub') return;
    this.clients.get(client)?.add(frame.topic);
    const { since, topic } = frame;
    const mode = since?.epoch === this.epoch ? 'replay' : 'snapshot';
    client.send(JSON.stringify({ op: 'sub_ok', mode, ...this.position(topic) }));
    if (mode === 'snapshot') return;
    for (const event of this.log(topic))
      if (event.seq > (since?.seq ?? 0)) client.send(JSON.stringify({ op: 'pub', ...event }));
  }

  private list<Kind extends keyof Entities>(kind: Kind) {
    return [...this.state[kind].values()];
  }

  private snapshot(topic: string, body: object) {
    this.fetches++;
    return HttpResponse.json({ ...body, stream: this.position(topic) });
  }

  private jobSnapshot(id: number) {
    const job: Job | undefined = this.state.jobs.get(id);
    if (!job)
      return HttpResponse.json(
        { code: 'job.unknown', message: `There is no job ${id}.`, data: {} },
        { status: 404 },
      );
    const { rounds, assignments, contributions, nodes, payments, audits } = this.state;
    return this.snapshot(`job.${id}`, {
      job,
      rounds: [...rounds.values()],
      assignments: [...assignments.values()],
      contributions: [...contributions.values()],
      nodes: [...nodes.values()],
      payments: [...payments.values()],
      audits: [...audits.values()],
    });
  }
}

export const server = setupServer();

/** A fake server that answers from now on, until the end of the test. */
export function serve(start: Changes): FakeServer {
  const fake = new FakeServer(start);
  server.use(...fake.handlers());
  return fake;
}
