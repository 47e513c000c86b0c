import { screen, within } from '@testing-library/react';
import { describe, expect, it, vi } from 'vitest';
import { job, node, OPERATOR, round } from '@/test/fixtures';
import { open } from '@/test/render';
import { serve } from '@/test/server';

vi.mock('@/components/LineChart', () => ({ LineChart: () => null }));

describe('what is measured of links', () => {
  it('is on the job page with unit, jitter, and whose word it is', async () => {
    const seen = {
      deviation: 3000,
      at: new Date().toISOString(),
      source: 'transfer',
      claimed: false,
      samples: 4,
    };
    const measured = { ...node(1).measured, up: { ...seen, value: 125_000 } };
    serve({ jobs: [job()], nodes: [node(1, { measured }), node(2, { measured: {} })], rounds: [round(0)] });
    open('/jobs/1');
    const [row, ...others] = await screen.findAllByTestId('link-row');
    expect(others).toHaveLength(0);
    const cells = within(row as HTMLElement);
    expect(cells.getByTitle('seen by the coordinator, from real files')).toHaveTextContent('125 kB/s');
    expect(cells.getByTitle("the node's word, from small requests")).toHaveTextContent('8.2 ms');
    expect(cells.getByText(/± 1\.1 ms \(node\)/)).toBeInTheDocument();
  });

  it("has a history on the operator's page, the coordinator's view beside the node's word", async () => {
    serve({ nodes: [node(1)] });
    open(`/operators/${OPERATOR}`);
    const rows = await screen.findAllByTestId('measurement');
    expect(rows.map((row) => row.dataset.quantity)).toEqual(['rtt', 'rtt', 'speed']);
    expect(rows[0]).toHaveTextContent('105 ms');
    expect(rows[0]).toHaveTextContent('seen by the coordinator');
    expect(rows[1]).toHaveTextContent("the node's word");
    expect(rows[2]).toHaveTextContent('412 samples/s');
  });

  it('shows how far nodes are from each other', async () => {
    serve({ nodes: [node(1), node(2)] });
    open('/operators');
    const pairs = await screen.findByTestId('pairs');
    expect(await within(pairs).findByRole('columnheader', { name: 'gpu-2' })).toBeInTheDocument();
    expect(pairs).toHaveTextContent('4.2 ms');
  });
});
