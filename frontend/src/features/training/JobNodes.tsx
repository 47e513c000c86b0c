import { Link } from 'react-router';
import type { Assignment, Job, Node } from '@/api/types';
import { Amount, Bar, Empty, Panel } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { Measured } from '@/components/Measured';
import { Why } from '@/components/Parts';
import { NodeDot, NodeStateChip, nodeName, SuspensionChip } from '@/components/states';
import { count, loss } from '@/lib/format';
import { sum } from '@/lib/money';
import { useNow } from '@/lib/useNow';
import type { Entities } from '@/realtime/entities';
import { listOf } from '@/realtime/topics';

type Row = { node: Node; work: Assignment | undefined; units: number; earned: bigint };

const CREDITED = new Set(['included', 'final']);

function rowsOf(entities: Entities): Row[] {
  const newest = Math.max(-1, ...[...entities.rounds.values()].map((round) => round.number));
  return listOf(entities.nodes, (node) => -node.id).map((node) => {
    const paid = [...entities.payments.values()].filter(
      (payment) => payment.node_id === node.id && CREDITED.has(payment.state),
    );
    return {
      node,
      work: [...entities.assignments.values()].find((row) => row.node_id === node.id && row.round === newest),
      units: paid.reduce((total, payment) => total + payment.units, 0),
      earned: sum(paid.map((payment) => payment.amount ?? '0')),
    };
  });
}

export function JobNodes({ job, entities }: { job: Job; entities: Entities }) {
  const rows = rowsOf(entities);
  const online = rows.filter((row) => row.node.state === 'online').length;
  return (
    <Panel
      title="Nodes"
      aside={<span className="muted small">{rows.length ? `${online} of ${rows.length} online` : ''}</span>}
      flush
    >
      {rows.length === 0 ? (
        <Empty title="No node is seated yet" action={<Link to="/operate">Connect your GPU</Link>}>
          Nodes take a seat when their bid is at most the job's rate.{' '}
          {job.state === 'draft' ? 'The job must be funded first.' : ''}
        </Empty>
      ) : (
        <DataTable
          caption="Nodes that train this job"
          columns={[
            { key: 'node', label: 'Node', lead: true, cell: ({ node }) => <NodeName node={node} /> },
            { key: 'state', label: 'State', cell: ({ node }) => <State node={node} /> },
            {
              key: 'device',
              label: 'Device',
              cell: ({ node }) => node.device || <span className="muted">not reported</span>,
            },
            {
              key: 'rtt',
              label: 'Round trip',
              wide: true,
              cell: ({ node }) => <Measured of="rtt" fact={node.measured.rtt} />,
            },
            { key: 'step', label: 'This round', wide: true, cell: ({ work }) => <Work work={work} /> },
            { key: 'why', label: 'Taken', wide: true, cell: ({ node }) => <Taken job={job} node={node} /> },
            { key: 'units', label: 'Samples paid', number: true, cell: ({ units }) => count(units) },
            {
              key: 'earned',
              label: 'Earned here',
              number: true,
              cell: ({ earned }) => <Amount base={earned} aligned />,
            },
          ]}
          rows={rows}
          id={(row) => row.node.id}
        />
      )}
    </Panel>
  );
}

function State({ node }: { node: Node }) {
  const now = useNow();
  return (
    <span className="row">
      <NodeStateChip state={node.state} />
      <SuspensionChip node={node} now={now} />
    </span>
  );
}

/** Why the job took the node. */
function Taken({ job, node }: { job: Job; node: Node }) {
  const choice = node.choices.find((one) => one.job_id === job.id && one.taken);
  return choice ? <Why reasons={[choice]} label="Why" /> : <span className="muted">–</span>;
}

function NodeName({ node }: { node: Node }) {
  return (
    <span className="address">
      <NodeDot id={node.id} />
      <Link to={`/operators/${node.operator}`}>{nodeName(node)}</Link>
      <span className="muted small num">#{node.id}</span>
    </span>
  );
}

function Work({ work }: { work: Assignment | undefined }) {
  if (!work) return <span className="muted">no part in it</span>;
  const last = work.losses.at(-1)?.[1];
  const label = {
    open: 'not taken yet',
    leased: '',
    committed: 'uploading',
    handed_in: 'handed in',
    expired: 'lease expired',
    failed: 'failed',
    late: 'late, still working',
    carried: 'carried into the next round',
  }[work.state];
  return (
    <span className="stack tight" style={{ minWidth: 150 }} title={work.reason ?? undefined}>
      <Bar
        value={(100 * work.step) / Math.max(1, work.steps)}
        label="Steps of this round"
        tone={
          work.state === 'handed_in'
            ? 'ok'
            : work.state === 'leased' || work.state === 'committed'
              ? undefined
              : 'idle'
        }
        text={`step ${work.step} of ${work.steps}`}
      />
      <span className="small muted num">
        step {work.step} / {work.steps}
        {last === undefined ? '' : ` · loss ${loss(last)}`}
        {label ? ` · ${label}` : ''}
        {work.attempt > 1 ? ` · attempt ${work.attempt}` : ''}
      </span>
    </span>
  );
}
