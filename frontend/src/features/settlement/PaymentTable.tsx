import { Link } from 'react-router';
import type { Node, Payment } from '@/api/types';
import { Age, Empty, Panel, Pay } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { NodeDot, nodeName, PaymentStateChip } from '@/components/states';
import { TransactionHash } from '@/components/TransactionPanel';
import { count, duration, quality } from '@/lib/format';
import { settleSeconds } from './ledger';

type Props = { payments: readonly Payment[]; nodes: ReadonlyMap<number, Node> };

/** An operator's payments over all jobs, newest first. */
export function PaymentTable({ payments, nodes }: Props) {
  const rows = [...payments].sort((a, b) => b.id - a.id);
  return (
    <Panel title="Payments" aside={<span className="muted small">the newest 200</span>} flush>
      {rows.length === 0 ? (
        <Empty title="No payment yet">
          The first one follows the first accepted contribution, within seconds.
        </Empty>
      ) : (
        <DataTable
          caption="Payments, newest first"
          columns={[
            { key: 'for', label: 'For', lead: true, cell: (payment) => <WorkLink payment={payment} /> },
            { key: 'node', label: 'Node', cell: ({ node_id }) => <NodeName id={node_id} nodes={nodes} /> },
            { key: 'samples', label: 'Samples', number: true, cell: ({ units }) => count(units) },
            {
              key: 'quality',
              label: 'Quality',
              number: true,
              cell: (payment) => (payment.quality === null ? '–' : quality(payment.quality)),
            },
            {
              key: 'amount',
              label: 'Amount',
              number: true,
              cell: (payment) => <Pay payment={payment} />,
            },
            { key: 'state', label: 'State', cell: ({ state }) => <PaymentStateChip state={state} /> },
            {
              key: 'tx',
              label: 'Transaction',
              cell: ({ tx_hash }) => (tx_hash ? <TransactionHash hash={tx_hash} /> : '–'),
            },
            {
              key: 'seconds',
              label: 'Hand-in to final',
              number: true,
              cell: (payment) => <Settled payment={payment} />,
            },
          ]}
          rows={rows}
          id={(payment) => payment.id}
          limit={20}
          rowProps={({ state }) => ({ 'data-testid': 'payment-row', 'data-state': state })}
        />
      )}
    </Panel>
  );
}

function WorkLink({ payment: { job_id, round } }: { payment: Payment }) {
  return (
    <Link to={`/jobs/${job_id}?round=${round}`}>
      job {job_id}, round {round}
    </Link>
  );
}

function NodeName({ id, nodes }: { id: number; nodes: ReadonlyMap<number, Node> }) {
  return (
    <span className="address">
      <NodeDot id={id} />
      {nodeName(nodes.get(id), id)}
    </span>
  );
}

function Settled({ payment }: { payment: Payment }) {
  const seconds = settleSeconds(payment);
  return seconds === null ? (
    <Age at={payment.handed_in_at} prefix="handed in " />
  ) : (
    <span className="num">{duration(seconds)}</span>
  );
}
