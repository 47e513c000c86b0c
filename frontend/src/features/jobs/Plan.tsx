import { keepPreviousData, useMutation, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useNavigate } from 'react-router';
import { draftJob, fetchProposals } from '@/api/endpoints';
import type { Job, Proposal, Proposals } from '@/api/types';
import { Amount, Panel } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { Select } from '@/components/Field';
import { ErrorNotice, Notice } from '@/components/Notice';
import { Why } from '@/components/Parts';
import { duration, durations, plural } from '@/lib/format';
import { worstCase } from './draft';

const GOALS = [
  { value: 'price', label: 'at the least price' },
  { value: 'time', label: 'in the least time' },
];
/** How sure a prediction is, by what it rests on. */
const UNSURE: Record<Proposals['basis'], string> = {
  nodes: '',
  others: 'Not all of these nodes have kept an order yet: others’ orders here stand for theirs.',
  assumed: 'Nobody has measured these nodes yet: what rounds take beside links and steps is assumed.',
};
const REFRESH_MS = 20_000;

/** Who would train a draft, until when and for how much, and what else it could say: one click writes that into a new draft. */
export function Plan({ job }: { job: Job }) {
  const [goal, setGoal] = useState(job.goal);
  const navigate = useNavigate();
  const found = useQuery({
    queryKey: ['proposals', job.id, goal],
    queryFn: ({ signal }) => fetchProposals(job.id, goal, signal),
    enabled: job.parameters !== null,
    placeholderData: keepPreviousData,
    refetchInterval: REFRESH_MS,
  });
  const use = useMutation({
    mutationFn: (proposal: Proposal) => draftJob(rewritten(job, proposal, goal)),
    onSuccess: ({ job: draft }) => navigate(`/new?job=${draft.id}`, { replace: true }),
  });
  return (
    <Panel
      title="Who would train it"
      aside={<span className="muted small">by the bids that are open now</span>}
    >
      <div className="stack" data-testid="plan">
        <Select
          label="To the target"
          value={goal}
          onChange={(event) => setGoal(event.target.value as Job['goal'])}
          options={GOALS}
        />
        {job.parameters === null ? (
          <p className="muted">A worker is building the model to see how large it is…</p>
        ) : null}
        {found.error ? <ErrorNotice error={found.error} /> : null}
        {use.error ? <ErrorNotice error={use.error} title="The draft was not saved." /> : null}
        {found.data ? (
          <Choices
            found={found.data}
            job={job}
            goal={goal}
            use={use.mutate}
            busy={use.isPending || found.isPlaceholderData}
          />
        ) : null}
      </div>
    </Panel>
  );
}

type ChoicesProps = {
  found: Proposals;
  job: Job;
  goal: Job['goal'];
  use: (proposal: Proposal) => void;
  busy: boolean;
};

function Choices({ found, job, goal, use, busy }: ChoicesProps) {
  const best = found.proposals[0];
  if (!best) {
    return (
      <Notice tone="warn" title={`${plural(found.bidders, 'node')} would take this now`}>
        A round needs {job.spec.rounds.quorum}. The job waits, and no money is spent, until they come.
      </Notice>
    );
  }
  const { low, high } = best.round_seconds;
  return (
    <>
      {best.in_time === false ? (
        <Notice tone="warn" title="Nothing that could be chosen meets the deadline">
          The soonest choice is expected to take {duration(best.seconds.expected)}.
        </Notice>
      ) : null}
      <DataTable
        caption="What could be chosen, the best first"
        columns={[
          {
            key: 'what',
            label: 'What',
            lead: true,
            cell: (row) => row.changes.join(', ') || 'as it is written',
          },
          { key: 'nodes', label: 'Nodes', number: true, cell: (row) => row.nodes.length },
          { key: 'time', label: 'Expected time', number: true, cell: (row) => <Time proposal={row} /> },
          {
            key: 'price',
            label: 'Price, at most',
            number: true,
            cell: (row) => <Amount base={String(Math.round(row.price.expected))} aligned />,
          },
          { key: 'why', label: 'Why', wide: true, cell: (row) => <Why reasons={row.reasons} /> },
          {
            key: 'use',
            label: '',
            cell: (row) =>
              row.changes.length || goal !== job.goal ? (
                <button type="button" className="button small" disabled={busy} onClick={() => use(row)}>
                  Use this
                </button>
              ) : (
                <span className="muted small">this draft</span>
              ),
          },
        ]}
        rows={found.proposals}
        id={(row) => `${row.nodes.join(',')} ${row.changes.join(',')}`}
        rowProps={() => ({ 'data-testid': 'proposal' })}
      />
      <p className="small muted">
        A prediction from what was measured of machines and links. How many rounds the target takes is not
        known before some are done: until then the job's own number stands for it. Eight rounds of ten are
        expected to take {durations(low, high ?? low)}. {UNSURE[found.basis]}
      </p>
    </>
  );
}

function Time({ proposal }: { proposal: Proposal }) {
  const { expected, high } = proposal.seconds;
  return (
    <span title={high === null ? 'no upper bound is known' : `at the worst ${duration(high)}`}>
      {duration(expected)}
      {proposal.in_time === false ? ', late' : ''}
    </span>
  );
}

/** The draft as the proposal has it, with an escrow for all of its rounds. */
export function rewritten(job: Job, proposal: Proposal, goal: Job['goal']) {
  const { name, max_rate, finish_by } = job;
  const escrow = String(worstCase(proposal.spec, BigInt(max_rate)));
  return { name, spec: proposal.spec, max_rate, escrow, finish_by, goal };
}
