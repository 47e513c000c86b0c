import { Link } from 'react-router';
import type { Job, Node, Payment } from '@/api/types';
import { Age, Empty, Panel, Pay } from '@/components/basics';
import { nodeName, PaymentStateChip } from '@/components/states';
import { TransactionHash } from '@/components/TransactionPanel';

type Props = {
  payments: readonly Payment[];
  jobs: ReadonlyMap<number, Job>;
  nodes: ReadonlyMap<number, Node>;
  ready: boolean;
};

const touched = (payment: Payment) =>
  Date.parse(payment.final_at ?? payment.included_at ?? payment.sent_at ?? payment.handed_in_at);

/** The newest payments of the jobs on the page, each with the transaction that anybody can look up. */
export function PaymentFeed({ payments, jobs, nodes, ready }: Props) {
  const newest = [...payments].sort((a, b) => touched(b) - touched(a) || b.id - a.id).slice(0, 8);
  return (
    <Panel title="Latest payments" flush>
      {newest.length === 0 ? (
        <Empty title={ready ? 'No payment yet' : 'Reading…'}>
          {ready ? 'The first one follows seconds after the first contribution of a job is accepted.' : null}
        </Empty>
      ) : (
        <ul className="feed">
          {newest.map((payment) => (
            <li key={payment.id} data-testid="payment-row" data-state={payment.state}>
              <span className="line">
                <strong>
                  <Pay payment={payment} />
                </strong>{' '}
                to {nodeName(nodes.get(payment.node_id), payment.node_id)}
              </span>
              <PaymentStateChip state={payment.state} />
              <span className="line sub">
                round {payment.round} of{' '}
                <Link to={`/jobs/${payment.job_id}`}>
                  {jobs.get(payment.job_id)?.name ?? `job ${payment.job_id}`}
                </Link>
              </span>
              {payment.tx_hash ? (
                <TransactionHash hash={payment.tx_hash} />
              ) : (
                <Age at={payment.handed_in_at} />
              )}
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}
