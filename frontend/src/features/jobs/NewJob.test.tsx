import { fireEvent, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { HttpResponse, http } from 'msw';
import { describe, expect, it, vi } from 'vitest';
import type { JobRequest, Proposal } from '@/api/types';
import { job, REQUESTER } from '@/test/fixtures';
import { open } from '@/test/render';
import { serve, server } from '@/test/server';
import { DEFAULT_SPEC } from './draft';

// The last test arrives on the job's page, whose charts need a canvas.
vi.mock('@/components/LineChart', () => ({ LineChart: () => null }));

function answerChecks(seen: JobRequest[], change: object = {}) {
  server.use(
    http.post('*/api/v1/jobs/check', async ({ request }) => {
      const body = (await request.json()) as JobRequest;
      seen.push(body);
      return HttpResponse.json({
        spec: body.spec,
        spec_hash: 'ab'.repeat(32),
        units_per_round: 1280,
        worst_case_cost: '307200',
        matching_nodes: 1,
        online_nodes: 3,
        cheapest_rate: '7',
        ...change,
      });
    }),
  );
}

const json = () => screen.findByTestId('new-job-json') as Promise<HTMLTextAreaElement>;

describe('posting a job', () => {
  it('keeps the form and the JSON in step, both ways', async () => {
    serve({});
    answerChecks([]);
    open('/new');
    const rounds = await screen.findByTestId('new-job-rounds');
    fireEvent.change(rounds, { target: { value: '3' } });
    expect(JSON.parse((await json()).value).rounds.rounds).toBe(3);
    fireEvent.change(await json(), { target: { value: '{"rounds": {"rounds": 7, "nodes": 2}}' } });
    expect(rounds).toHaveValue('7');
    expect(screen.getByTestId('new-job-nodes')).toHaveValue('2');
    expect(screen.getByTestId('new-job-escrow')).toHaveValue('0.0896');
  });

  it('says what is wrong with the JSON and asks the server nothing about it', async () => {
    serve({});
    const seen: JobRequest[] = [];
    answerChecks(seen);
    open('/new');
    fireEvent.change(await json(), { target: { value: '{"rounds":' } });
    expect(await screen.findByText(/This is not JSON/)).toBeInTheDocument();
    expect(screen.getByText('Mend the JSON below.')).toBeInTheDocument();
    const asked = seen.length;
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(seen.length).toBe(asked);
  });

  it('tells who would take it and what to change', async () => {
    serve({});
    const seen: JobRequest[] = [];
    answerChecks(seen);
    open('/new');
    expect(await screen.findByTestId('check')).toHaveTextContent('1 of 3 online; 4 wanted');
    expect(screen.getByText('1 node would take this now; a round needs 2')).toBeInTheDocument();
    expect(screen.getAllByText(/7\.00 tUSD per million samples/)).toHaveLength(2);
    expect(seen[0]).toMatchObject({ name: 'Handwritten digits', max_rate: '5', escrow: '307200' });
  });

  it('posts a deadline beside the specification, and none that has passed', async () => {
    serve({});
    const seen: JobRequest[] = [];
    answerChecks(seen);
    open('/new');
    const field = await screen.findByTestId('new-job-finish-by');
    fireEvent.change(field, { target: { value: '2099-01-02T03:04' } });
    const moment = new Date(2099, 0, 2, 3, 4).toISOString();
    await waitFor(() => expect(seen.at(-1)).toMatchObject({ finish_by: moment }));
    expect(seen.at(-1)?.spec).not.toHaveProperty('finish_by');
    fireEvent.change(field, { target: { value: '2020-01-01T00:00' } });
    expect(await screen.findByText('Its deadline has passed.')).toBeInTheDocument();
  });

  it("lists the server's problems by field", async () => {
    serve({});
    const problems = [{ field: 'rounds', problem: 'quorum is larger than the number of nodes' }];
    server.use(
      http.post('*/api/v1/jobs/check', () =>
        HttpResponse.json(
          { code: 'spec.invalid', message: 'The specification is not valid.', data: { problems } },
          { status: 422 },
        ),
      ),
    );
    open('/new');
    expect(await screen.findByText(/quorum is larger/)).toBeInTheDocument();
  });

  it('asks for a wallet first; with a session it saves the draft and goes to funding', async () => {
    const fake = serve({});
    answerChecks([]);
    const page = open('/new');
    expect(await screen.findByTestId('connect-wallet-here')).toBeEnabled();
    expect(screen.queryByTestId('new-job-submit')).toBeNull();
    page.unmount();
    fake.session = REQUESTER;
    server.use(
      http.post('*/api/v1/jobs', async ({ request }) => {
        const body = (await request.json()) as JobRequest;
        expect(request.headers.get('X-CSRFToken')).toBe('token');
        const draft = job({ id: 5, state: 'draft', name: body.name, chain_id: null });
        fake.emit('market', 'job.drafted', { job: draft });
        return HttpResponse.json(
          { job: draft, transaction: { function: 'createJob', args: [] } },
          { status: 201 },
        );
      }),
    );
    open('/new');
    await userEvent.click(await screen.findByTestId('new-job-submit'));
    expect(await screen.findByText('Fund Handwritten digits')).toBeInTheDocument();
  });

  it('says who would train a draft, and writes a better plan into a new one with one click', async () => {
    const fake = serve({ jobs: [job({ id: 5, state: 'draft', parameters: 9610, goal: 'price' })] });
    fake.session = REQUESTER;
    const span = (expected: number) => ({ expected, low: 0, high: null });
    const plan = (change: Partial<Proposal>): Proposal => ({
      nodes: [1, 2],
      spec: DEFAULT_SPEC,
      changes: [],
      in_time: null,
      round_seconds: { expected: 5, low: 3, high: 9 },
      round_price: '100',
      rounds: span(12),
      seconds: span(60),
      price: span(1200),
      reasons: [],
      ...change,
    });
    const sparser = { ...DEFAULT_SPEC, rounds: { ...DEFAULT_SPEC.rounds, rounds: 18 } };
    const better = plan({ changes: ['rounds.rounds 18'], spec: sparser, seconds: span(40), in_time: false });
    const asked: string[] = [];
    server.use(
      http.get('*/api/v1/jobs/:id/proposals', ({ request }) => {
        asked.push(new URL(request.url).searchParams.get('goal') ?? '');
        return HttpResponse.json({
          bidders: 2,
          basis: 'assumed',
          parameters: 9610,
          proposals: [better, plan({})],
        });
      }),
      http.post('*/api/v1/jobs', async ({ request }) => {
        const body = (await request.json()) as JobRequest;
        expect(body).toMatchObject({ goal: 'price', spec: sparser, escrow: String(18 * 4 * 40 * 32 * 5) });
        const draft = job({ id: 6, state: 'draft', name: 'Rewritten', parameters: 9610 });
        fake.emit('market', 'job.drafted', { job: draft });
        return HttpResponse.json({ job: draft, transaction: {} }, { status: 201 });
      }),
    );
    open('/new?job=5');
    expect(await screen.findByText('the cheapest first')).toBeInTheDocument();
    const rows = await screen.findAllByTestId('proposal');
    expect(rows[0]).toHaveTextContent(/rounds.rounds 18.*40.s, late/);
    expect(rows[1]).toHaveTextContent(/as it is written.*this draft/);
    expect(screen.getByText(/take 3.0.s to 9.0.s\. Nobody has measured these nodes yet/)).toBeInTheDocument();
    expect(screen.getByText('Nothing that could be chosen meets the deadline')).toBeInTheDocument();
    expect(asked).toEqual(['price']);
    await userEvent.click(screen.getByRole('button', { name: 'Use this' }));
    expect(await screen.findByText('Fund Rewritten')).toBeInTheDocument();
  });

  it('does not fund a draft whose model cannot be built', async () => {
    serve({
      jobs: [job({ id: 5, state: 'draft', reason: 'gpt reads bytes samples, but the data holds image.' })],
    });
    open('/new?job=5');
    expect(await screen.findByText(/gpt reads bytes samples/)).toBeInTheDocument();
    expect(screen.queryByTestId('fund-submit')).toBeNull();
    expect(screen.queryByTestId('plan')).toBeNull();
  });

  it('never funds a draft whose specification is not the one that was hashed', async () => {
    serve({ jobs: [job({ id: 5, state: 'draft', spec_hash: '00'.repeat(32) })] });
    open('/new?job=5');
    expect(await screen.findByText('The specification does not match its hash')).toBeInTheDocument();
    expect(screen.queryByTestId('fund-submit')).toBeNull();
  });

  it('goes on to the job as soon as it is funded', async () => {
    const fake = serve({ jobs: [job({ id: 5, state: 'draft' })] });
    open('/new?job=5');
    await screen.findByText('Fund Handwritten digits');
    await waitFor(() => expect(screen.getByTestId('freshness')).toHaveAttribute('data-state', 'live'));
    fake.emit('job.5', 'job.funded', { job: job({ id: 5, state: 'funded' }) });
    expect(await screen.findByTestId('job-state')).toHaveAttribute('data-state', 'funded');
  });
});
