import { act, screen, waitFor } from '@testing-library/react';
import { HttpResponse, http } from 'msw';
import { describe, expect, it, vi } from 'vitest';
import type { Case } from '@/api/types';
import {
  assignment,
  audit,
  contribution,
  deterrence,
  job,
  network,
  node,
  OPERATOR,
  payment,
  round,
} from '@/test/fixtures';
import { open } from '@/test/render';
import { serve, server } from '@/test/server';

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
/** Waits until the socket is subscribed, so that what the test emits is heard. */
async function live() {
  await waitFor(() => expect(screen.getByTestId('freshness')).toHaveAttribute('data-state', 'live'));
}

describe('audits on the job page', () => {
  const audited = () => ({
    ...running(),
    audits: [
      audit(0, 1, { state: 'passed', judged_at: '2026-11-21T12:00:20Z', error: 0.0021, tolerance: 0.05 }),
    ],
  });

  it('follow each other, with what they found, and say that nothing follows yet', async () => {
    const fake = serve(audited());
    open('/jobs/1');
    const row = await screen.findByTestId('audit-row');
    expect(row).toHaveTextContent('0.21 %');
    expect(row).toHaveTextContent('block 44');
    expect(await screen.findByText('shadow mode')).toBeInTheDocument();
    expect(screen.getByTestId('audit-verdicts')).toHaveTextContent('1 audit: 1 passed');
    await live();
    act(() => void fake.emit('job.1', 'audit.requested', { audits: [audit(0, 2)] }));
    await waitFor(() => expect(screen.getAllByTestId('audit-row')).toHaveLength(2));
    expect(screen.getByTestId('audit-verdicts')).toHaveTextContent('2 audits: 1 passed, 1 open');
  });

  it('tell what becomes of a failed one at the court', async () => {
    const opened: Case = {
      chain_id: 3,
      state: 'voting',
      until: 1_800_000_000,
      members: 3,
      committed: 3,
      revealed: 2,
      paid: 10_000,
      finding: null,
      upheld: null,
      taken: '0',
      reason: null,
    };
    const failed = {
      state: 'failed',
      judged_at: '2026-11-21T12:00:20Z',
      shadow: false,
      proven: true,
    } as const;
    const fake = serve({ ...running(), audits: [audit(0, 1, { ...failed, case: opened })] });
    open('/jobs/1');
    expect(await screen.findByTestId('case')).toHaveTextContent('case 3 voting 3 of 3 committed, 2 revealed');
    await live();
    const over: Case = {
      ...opened,
      state: 'executed',
      until: null,
      finding: 0,
      upheld: true,
      taken: '12800',
    };
    act(() => void fake.emit('job.1', 'case.executed', { audits: [audit(0, 1, { ...failed, case: over })] }));
    await waitFor(() => expect(screen.getByTestId('case')).toHaveAttribute('data-state', 'executed'));
    expect(screen.getByTestId('case')).toHaveTextContent('0.0128');
    expect(screen.getByTestId('case')).toHaveTextContent('taken from the node');
  });

  it('show what is at stake against what must be, and the false alarms with their number', async () => {
    serve(audited());
    open('/jobs/1');
    const rows = await screen.findAllByTestId('at-stake-row');
    expect(rows.map((row) => row.dataset.enough)).toEqual(['false', 'false']);
    expect(rows[0]).toHaveTextContent('0.678788');
    expect(rows[0]).toHaveTextContent('0.0128');
    expect(screen.getByTestId('case-takes')).toHaveTextContent('enough to deter where 35 %');
    expect(screen.getByTestId('cheat-keeps')).toHaveTextContent('32 % of its pay for the first 4 rounds');
    expect(screen.getByTestId('audit-costs')).toHaveTextContent(
      "3.1 % of a new node's work again, later 0.25 %",
    );
    expect(screen.getByText(/3 × 70 % of a round's pay ÷ \(2 % × 99 %\)/)).toBeInTheDocument();
    expect(screen.getByTestId('audit-class-row')).toHaveTextContent('shadow, 41 of 300');
    expect(screen.getByTestId('audit-class-row')).toHaveTextContent('7.1 %');
  });

  it('leave shadow mode when every class is calibrated', async () => {
    serve(audited());
    const known = deterrence();
    const classes = known.classes.map((one) => ({ ...one, honest: 300, calibrated: true }));
    server.use(http.get('*/api/v1/jobs/1/deterrence', () => HttpResponse.json({ ...known, classes })));
    open('/jobs/1');
    expect(await screen.findByText('audits count')).toBeInTheDocument();
    expect(screen.queryByText('shadow mode')).toBeNull();
  });

  it('say for how long a node is left out, on its own page and why', async () => {
    const suspension = {
      until: '2999-01-01T00:00:00Z',
      reason: 'Audit 7: Round 3, computed again, gave something else.',
    };
    serve({ ...audited(), nodes: [node(1, { suspension, rating: { mu: 21.4, sigma: 7.9 } }), node(2)] });
    open(`/operators/${OPERATOR}`);
    expect(await screen.findByText('left out')).toHaveAttribute('title', expect.stringContaining('Round 3'));
    expect(screen.getByText('21.4 ± 7.9')).toBeInTheDocument();
    expect(screen.getByTestId('audit-row')).toHaveTextContent('job 1, round 0');
  });
});

describe('model versions', () => {
  it('show the root after each round, what travelled, and how to compute it again', async () => {
    const version = 'c0ffee'.padEnd(64, '0');
    const after = { version, checkpoint: 'ab'.repeat(32), delta: 'cd'.repeat(32), delta_bytes: 4_900 };
    serve({ ...running(), rounds: [round(0, { after }), round(1)] });
    open('/jobs/1');
    const row = await screen.findByTestId('version-row');
    expect(row).toHaveTextContent('c0ffee00');
    expect(row).toHaveTextContent('19.9 kB');
    expect(row).toHaveTextContent('4.9 kB');
    expect(screen.getByTestId('audit-command')).toHaveTextContent(
      `hypergpu audit 1 --rpc ${network.chain.rpc_url} --contract ${network.contracts.market}`,
    );
  });
});
