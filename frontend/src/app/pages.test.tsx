import { act, screen, waitFor, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { HttpResponse, http } from 'msw';
import { type AbiFunction, encodeFunctionResult, toFunctionSelector } from 'viem';
import { describe, expect, it, vi } from 'vitest';
import type { Payment } from '@/api/types';
import { computeMarketAbi } from '@/chain/abi';
import { FakeChain } from '@/test/chain';
import { assignment, contribution, job, network, node, OPERATOR, payment, round } from '@/test/fixtures';
import { open } from '@/test/render';
import { serve, server } from '@/test/server';
import vectors from '../../../tests/vectors/protocol.json';

vi.mock('@/components/LineChart', () => ({
  LineChart: ({ name, summary }: { name: string; summary: string }) => (
    <figure aria-label={name}>{summary}</figure>
  ),
}));

const running = () => ({
  jobs: [job()],
  nodes: [node(1), node(2)],
  rounds: [round(0)],
  assignments: [assignment(0, 1), assignment(0, 2)],
  contributions: [contribution(0, 1)],
  payments: [payment(0, 1)],
});
const paid: Partial<Payment> = {
  state: 'final',
  tx_hash: `0x${'cd'.repeat(32)}`,
  block: 9,
  sent_at: '2026-11-21T12:00:07Z',
  included_at: '2026-11-21T12:00:08Z',
  final_at: '2026-11-21T12:00:09.500Z',
};
const row = () => screen.findByTestId('payment-row');

/** Waits until the socket is subscribed, so that what the test emits is heard. */
async function live() {
  await waitFor(() => expect(screen.getByTestId('freshness')).toHaveAttribute('data-state', 'live'));
}

describe('the job page', () => {
  it('shows state, points, nodes and payments of the snapshot', async () => {
    serve(running());
    open('/jobs/1');
    expect(await screen.findByRole('heading', { name: 'Handwritten digits' })).toBeInTheDocument();
    expect(screen.getByTestId('job-state')).toHaveAttribute('data-state', 'running');
    expect(screen.getByTestId('loss-points')).toHaveAttribute('data-count', '5');
    expect(await row()).toHaveAttribute('data-state', 'queued');
    expect(screen.getByText('1 of 2 handed in')).toBeInTheDocument();
    expect(screen.getAllByText('NVIDIA H200')).toHaveLength(2);
  });

  it('follows a payment through its states, and looks the same after a reload', async () => {
    const fake = serve(running());
    const page = open('/jobs/1');
    await row();
    await live();
    act(
      () =>
        void fake.emit('job.1', 'payment.sent', {
          payments: [payment(0, 1, { state: 'sent', tx_hash: paid.tx_hash })],
        }),
    );
    await waitFor(async () => expect(await row()).toHaveAttribute('data-state', 'sent'));
    act(
      () =>
        void fake.emit('job.1', 'payment.final', {
          job: job({ spent: '6400' }),
          payments: [payment(0, 1, paid)],
        }),
    );
    await waitFor(async () => expect(await row()).toHaveAttribute('data-state', 'final'));
    expect(within(await row()).getByText(/3\.5/)).toBeInTheDocument();
    expect(screen.getByTestId('reconciliation')).toHaveAttribute('data-agrees', 'true');
    const before = (await row()).textContent;
    page.unmount();
    open('/jobs/1');
    expect((await row()).textContent).toBe(before);
  });

  it('heals a gap by fetching again', async () => {
    const fake = serve(running());
    open('/jobs/1');
    await row();
    await live();
    const fetches = fake.fetches;
    fake.emit('job.1', 'payment.sent', { payments: [payment(0, 1, { state: 'sent' })] }, { lost: true });
    act(() => void fake.emit('job.1', 'round.closed', { rounds: [round(0, { state: 'aggregating' })] }));
    await waitFor(async () => expect(await row()).toHaveAttribute('data-state', 'sent'));
    expect(fake.fetches).toBe(fetches + 1);
  });

  it('is right again after the server restarts under a new epoch', async () => {
    const fake = serve(running());
    open('/jobs/1');
    await row();
    await live();
    fake.restart();
    act(() => void fake.emit('job.1', 'payment.final', { payments: [payment(0, 1, paid)] }));
    await waitFor(async () => expect(await row()).toHaveAttribute('data-state', 'final'));
  });

  it('moves progress by gauges without a fetch', async () => {
    const fake = serve(running());
    open('/jobs/1');
    await row();
    await live();
    const fetches = fake.fetches;
    const losses: [number, number][] = [
      [1, 2.3],
      [2, 2.2],
      [3, 2.1],
      [4, 2],
    ];
    act(() =>
      fake.send('job.1', {
        op: 'gauge',
        topic: 'job.1',
        type: 'assignment.progress',
        at: '2026-11-21T12:00:05Z',
        changes: { assignments: [assignment(0, 1, { step: 4, losses })] },
      }),
    );
    await waitFor(() => expect(screen.getByTestId('loss-points')).toHaveAttribute('data-count', '7'));
    expect(fake.fetches).toBe(fetches);
  });

  it('tells how a payment was judged: by whom, the median, the sum, and where its receipt was recorded', async () => {
    const judged = payment(0, 12, { ...paid, quality: 9_000, amount: '5760' });
    const recorded = contribution(0, 12, { recorded_tx: `0x${'ef'.repeat(32)}` });
    serve({ ...running(), nodes: [node(12)], contributions: [recorded], payments: [judged] });
    const shown = (member: number, scores: string) => ({
      member,
      salt: `0x${'00'.repeat(32)}`,
      scores,
      signature: `0x${'11'.repeat(65)}`,
    });
    const silent = { member: 2, salt: `0x${'22'.repeat(32)}`, scores: '0x', signature: '0x' };
    const attestations = [shown(0, '0x27102710'), shown(1, '0x23282710'), silent];
    const batches = [
      { header: { round: 0, batch: 0, epoch: 1 }, receipts: vectors.batch.packed, attestations },
    ];
    server.use(http.get('*/api/v1/jobs/1/rounds/0/settlement', () => HttpResponse.json({ batches })));
    open('/jobs/1');
    await userEvent.click(await screen.findByTestId('payment-detail-open'));
    const rows = await screen.findAllByTestId('attestor-row');
    expect(rows.map((each) => each.textContent)).toEqual([
      expect.stringContaining('committed, signed, shown100'),
      expect.stringContaining('committed, signed, shown90'),
      expect.stringContaining('committed, never shown–'),
    ]);
    expect(screen.getByTestId('judging')).toHaveAttribute('data-agrees', 'true');
    expect(screen.getByText('Recorded on chain')).toBeInTheDocument();
  });

  it('shows where a receipt was recorded, until its payment is sent', async () => {
    const fake = serve({ ...running(), contributions: [contribution(0, 1)], payments: [] });
    open('/jobs/1');
    await row();
    await live();
    const recorded = contribution(0, 1, { recorded_tx: `0x${'ef'.repeat(32)}` });
    act(() => void fake.emit('job.1', 'contribution.recorded', { contributions: [recorded] }));
    await waitFor(async () => expect(await row()).toHaveTextContent('recorded 0xef'));
    act(() => void fake.emit('job.1', 'payment.final', { payments: [payment(0, 1, paid)] }));
    await waitFor(async () => expect(await row()).not.toHaveTextContent('recorded'));
  });

  it('says that the attestors have not shown their scores yet', async () => {
    serve({ ...running(), payments: [payment(0, 1, { state: 'attesting', quality: null, amount: null })] });
    open('/jobs/1');
    await userEvent.click(await screen.findByText('being judged'));
    expect(await screen.findByText(/Attestors first commit to their scores/)).toBeInTheDocument();
  });

  it('warns before the escrow is used up, and says what is missing when it is', async () => {
    const fake = serve({ ...running(), jobs: [job({ runway: 12 })] });
    open('/jobs/1');
    expect(await screen.findByTestId('runway-rounds')).toHaveTextContent('enough for 12 more rounds');
    expect(screen.queryByTestId('runway')).toBeNull();
    await live();
    act(() => void fake.emit('job.1', 'job.runway_low', { job: job({ runway: 2, round: 4 }) }));
    expect(await screen.findByText('The escrow covers 2 more rounds of 8')).toBeInTheDocument();
    const change = { state: 'paused' as const, runway: 0, round: 6, shortfall: '25600' };
    act(() => void fake.emit('job.1', 'job.paused', { job: job(change) }));
    await waitFor(() => expect(screen.getByTestId('runway')).toHaveAttribute('data-paused', 'true'));
    expect(screen.getByTestId('runway')).toHaveTextContent('0.0256');
  });

  it('lights up the round of a payment, and names it in the address', async () => {
    serve(running());
    open('/jobs/1');
    await userEvent.click(within(await row()).getByRole('button', { name: 'Show round 0 on the curves' }));
    expect(await row()).toHaveClass('selected');
  });

  it('shows a rejected contribution with its code and its reason', async () => {
    const refused = contribution(0, 2, {
      state: 'rejected',
      code: 'contribution.not_finite',
      reason: 'It holds 12 values that are not finite.',
    });
    serve({ ...running(), contributions: [contribution(0, 1), refused] });
    open('/jobs/1');
    expect(await screen.findByText('contribution.not_finite')).toBeInTheDocument();
    expect(screen.getByText('It holds 12 values that are not finite.')).toBeInTheDocument();
  });

  it('gives each chart a name and a summary in words', async () => {
    serve({
      ...running(),
      rounds: [round(0, { state: 'aggregated', metric: { loss: 1.5, accuracy: 0.62 } })],
    });
    open('/jobs/1');
    expect(await screen.findByRole('figure', { name: /Loss over rounds/ })).toHaveTextContent(
      'Evaluation loss went from 2.310 to 1.500 over 1 round.',
    );
    expect(screen.getByRole('figure', { name: /Accuracy/ })).toHaveTextContent(/62\.0/);
  });

  it('recomputes the hash of the specification in the browser', async () => {
    serve(running());
    open('/jobs/1?tab=config');
    expect(await screen.findByText('recomputed by your browser')).toBeInTheDocument();
  });

  it('says when a specification is not the one that was hashed', async () => {
    serve({ ...running(), jobs: [job({ spec_hash: '00'.repeat(32) })] });
    open('/jobs/1?tab=config');
    expect(await screen.findByText('your browser computes another hash')).toBeInTheDocument();
  });

  it('says that there is no such job', async () => {
    serve({});
    open('/jobs/7');
    expect(await screen.findByText('There is nothing here')).toBeInTheDocument();
  });
});

describe('the first page', () => {
  it('lists jobs and payments, and adds up what was paid exactly', async () => {
    serve({
      ...running(),
      nodes: [node(1, { earned: '9007199254740993' }), node(2, { earned: '1', state: 'offline' })],
    });
    open('/');
    expect(await screen.findByTestId('job-card')).toHaveAttribute('data-state', 'running');
    expect(screen.getByText(/9.007.199.254\.740994/)).toBeInTheDocument();
    expect(await row()).toHaveAttribute('data-state', 'queued');
    expect(screen.getByText('Test network: tokens have no value')).toBeInTheDocument();
  });

  it('shows a new job as soon as it is funded, and no draft', async () => {
    const fake = serve({});
    open('/');
    expect(await screen.findByText('No job has been posted yet')).toBeInTheDocument();
    await live();
    act(() => void fake.emit('market', 'job.drafted', { job: job({ state: 'draft' }) }));
    act(
      () => void fake.emit('market', 'job.funded', { job: job({ id: 2, state: 'funded', name: 'Second' }) }),
    );
    expect(await screen.findByText('Second')).toBeInTheDocument();
    expect(screen.getAllByTestId('job-card')).toHaveLength(1);
  });

  it('keeps asking when the server is not there yet', async () => {
    let down = true;
    serve(running());
    server.use(
      http.get('*/api/v1/network', () => (down ? HttpResponse.error() : HttpResponse.json(network))),
    );
    open('/');
    expect(await screen.findByText(/cannot be reached/)).toBeInTheDocument();
    down = false;
    expect(await screen.findByTestId('job-card', {}, { timeout: 10_000 })).toBeInTheDocument();
  });
});

describe('the other pages', () => {
  it('list nodes with what they measured', async () => {
    serve(running());
    open('/operators');
    expect(await screen.findAllByTestId('node-row')).toHaveLength(2);
  });

  it("show an operator's payments", async () => {
    serve(running());
    open(`/operators/${OPERATOR}`);
    expect(await row()).toHaveAttribute('data-state', 'queued');
  });

  it('show what a job was expected to come to beside what it came to, and its deadline', async () => {
    const predicted = {
      at: '2026-11-21T12:00:00.000Z',
      nodes: 2,
      rounds: 12,
      seconds: 90,
      price: '307200',
      low_seconds: 60,
      high_seconds: 150,
      basis: 'assumed' as const,
    };
    const done = {
      state: 'completed' as const,
      round: 12,
      spent: '300000',
      completed_at: '2026-11-21T12:01:40.000Z',
      finish_by: '2026-11-21T12:02:00.000Z',
    };
    serve({ ...running(), jobs: [job({ predicted, ...done })] });
    open('/jobs/1');
    expect(await screen.findByTestId('predicted')).toHaveTextContent(
      /predicted 1.min 30.s \(1.min to 2.min 30.s\) and at most 0\.3072.tUSD with 2 nodes; nobody had measured them before; took 1.min 40.s and 0\.30*.tUSD/,
    );
    expect(screen.getByTestId('deadline')).toHaveTextContent(/20.s early/);
  });

  it('show why a job took a node, and another did not', async () => {
    const seen = { at: '2026-11-21T12:00:00.000Z', code: 'assign.taken', text: 'Taken (cheapest first).' };
    const choices = [
      { ...seen, job_id: 2, taken: false, code: 'assign.busy', text: 'It works for job 1 already.' },
      { ...seen, job_id: 1, taken: true },
    ];
    serve({ ...running(), nodes: [node(1, { choices })] });
    open(`/operators/${OPERATOR}`);
    const rows = within(await screen.findByTestId('choices')).getAllByRole('listitem');
    expect(rows[0]).toHaveTextContent(/job 2 passed it over since .*: It works for job 1 already/);
    expect(rows[1]).toHaveTextContent(/job 1 works with it since .*: Taken/);
  });

  it("show where an operator's money is, by the contract's own views", async () => {
    serve(running());
    const chain = new FakeChain();
    const answer = (functionName: 'getOperator' | 'getOperatorMetrics' | 'terms', result: object) => {
      const abi = computeMarketAbi.filter((item) => item.type === 'function' && item.name === functionName);
      const data = encodeFunctionResult({ abi, functionName, result } as Parameters<
        typeof encodeFunctionResult
      >[0]);
      chain.answers.set(toFunctionSelector(abi[0] as AbiFunction), data);
    };
    const [stake, unbonding, advance] = [100_000_000n, 20_000_000n, 1_000_000n];
    answer('getOperator', { stake, unbonding, unstakeAvailableAt: 0n, activeNodes: 1, advance });
    const sums = { rounds: 3, units: 3840n, qualitySum: 30_000n, faults: 0 };
    const [credit, withdrawable, earned] = [9_000_000n, 6_500_000n, 12_000_000n];
    answer('getOperatorMetrics', { ...sums, credit, withdrawable, earned });
    const times = { exitNotice: 7200n, unbondingTime: 9000n, challengeWindow: 3600n, disputeTime: 5400n };
    answer('terms', { minStake: stake, instantShare: 5_000, ...times });
    server.use(chain.handler());
    open(`/operators/${OPERATOR}`);
    const money = await screen.findByTestId('operator-money');
    await waitFor(() => expect(money).toHaveTextContent('12.00'));
    expect([...money.querySelectorAll('dd.big')].map((each) => each.textContent)).toEqual([
      expect.stringContaining('12.00'),
      expect.stringContaining('6.50'),
      expect.stringContaining('2.50'),
      expect.stringContaining('3.00'),
      expect.stringContaining('120.00'),
    ]);
    expect(money).toHaveTextContent('up to 50 % of the stake early');
  });

  it('tell a stranger how to operate, without a wallet', async () => {
    serve({});
    open('/operate');
    expect(await screen.findByText('Register the node with its stake')).toBeInTheDocument();
    expect(screen.getByTestId('connect-wallet')).toBeEnabled();
    await userEvent.click(screen.getByTestId('connect-wallet'));
    expect(await screen.findByText(/No wallet announced itself/)).toBeInTheDocument();
  });

  it('say what an unknown address is', async () => {
    serve({});
    open('/nowhere');
    expect(await screen.findByText('/nowhere')).toBeInTheDocument();
  });
});

describe('every page', () => {
  it('says what keeps payments waiting', async () => {
    serve(running());
    const troubled = {
      ...network,
      paused: { new_jobs_until: null, settlement_until: '2999-01-01T00:00:00Z' },
      alarms: [
        {
          code: 'chain.low_balance',
          subject: '0x1',
          message: 'Sender 0x1 has 1 MON.',
          since: '2026-11-21T12:00:00Z',
        },
      ],
    };
    server.use(http.get('*/api/v1/network', () => HttpResponse.json(troubled)));
    open('/');
    expect(await screen.findByText('Settlement is paused')).toBeInTheDocument();
    expect(screen.getByText('Sender 0x1 has 1 MON.')).toBeInTheDocument();
    expect(screen.queryByText('New jobs are paused')).toBeNull();
  });
});
