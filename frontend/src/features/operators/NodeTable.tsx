import { Link } from 'react-router';
import type { Node } from '@/api/types';
import { Address, Age, Amount } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { Measured } from '@/components/Measured';
import { NodeStateChip, nodeName, Rating, SuspensionChip } from '@/components/states';
import { count, short } from '@/lib/format';
import { newestSpeed } from '@/lib/measures';
import { useNow } from '@/lib/useNow';

type Props = { nodes: readonly Node[]; withOperator?: boolean };

export function NodeTable({ nodes, withOperator }: Props) {
  const operator = {
    key: 'operator',
    label: 'Operator',
    cell: (node: Node) => (
      <Address
        value={node.operator}
        copy={false}
        href={
          <Link className="hash" to={`/operators/${node.operator}`} title={node.operator}>
            {short(node.operator)}
          </Link>
        }
      />
    ),
  };
  return (
    <DataTable
      caption="Nodes"
      columns={[
        { key: 'node', label: 'Node', lead: true, cell: (node) => <NodeName node={node} /> },
        { key: 'state', label: 'State', cell: (node) => <State node={node} /> },
        ...(withOperator ? [operator] : []),
        {
          key: 'device',
          label: 'Device',
          cell: (node) => node.device || <span className="muted">not reported</span>,
        },
        {
          key: 'speed',
          label: 'Speed',
          number: true,
          cell: (node) => <Measured of="speed" fact={newestSpeed(node)} />,
        },
        {
          key: 'rtt',
          label: 'Round trip',
          number: true,
          cell: (node) => <Measured of="rtt" fact={node.measured.rtt} />,
        },
        { key: 'work', label: 'Working on', cell: (node) => <WorkingOn node={node} /> },
        { key: 'rating', label: 'Rating', number: true, cell: (node) => <Rating node={node} /> },
        { key: 'rounds', label: 'Rounds paid', number: true, cell: (node) => count(node.rounds) },
        {
          key: 'earned',
          label: 'Earned',
          number: true,
          cell: (node) => <Amount base={node.earned} aligned />,
        },
      ]}
      rows={nodes}
      id={(node) => node.id}
      rowProps={(node) => ({ 'data-testid': 'node-row', 'data-state': node.state })}
      foot="Speed and link: measured; each says by whom and how long ago. Rounds, earnings: on chain. Rating: how its updates rank in their rounds, and how sure that is."
    />
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

function NodeName({ node }: { node: Node }) {
  return (
    <span>
      {nodeName(node)} <span className="muted small num">#{node.id}</span>
    </span>
  );
}

function WorkingOn({ node }: { node: Node }) {
  if (!node.working_on)
    return (
      <span className="muted">
        {node.last_seen ? <Age at={node.last_seen} prefix="seen " /> : 'not seen yet'}
      </span>
    );
  const { job_id, round } = node.working_on;
  return (
    <Link to={`/jobs/${job_id}`}>
      job {job_id}, round {round}
    </Link>
  );
}
