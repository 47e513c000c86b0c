import { Link, useParams } from 'react-router';
import { type Hex, isAddress } from 'viem';
import { Audits } from '@/components/Audits';
import { Address, Empty, Panel, Skeleton } from '@/components/basics';
import { Links } from '@/components/Links';
import { ErrorNotice } from '@/components/Notice';
import { LinkHistory } from '@/features/operators/LinkHistory';
import { NodeHealth } from '@/features/operators/NodeHealth';
import { NodeTable } from '@/features/operators/NodeTable';
import { OperatorMoney } from '@/features/operators/OperatorMoney';
import { PaymentTable } from '@/features/settlement/PaymentTable';
import { short } from '@/lib/format';
import { useTopic } from '@/realtime/RealtimeProvider';
import { listOf, operatorTopic } from '@/realtime/topics';
import { useTitle } from '../useTitle';
import { NotFoundPage } from './NotFoundPage';

export function OperatorPage() {
  const { address = '' } = useParams();
  return isAddress(address, { strict: false }) ? (
    <LiveOperator key={address} address={address} />
  ) : (
    <NotFoundPage />
  );
}

function LiveOperator({ address }: { address: Hex }) {
  const { data, ready, error, retry } = useTopic(operatorTopic(address));
  const nodes = listOf(data.nodes, (node) => -node.id);
  useTitle(`Operator ${short(address)}`);
  return (
    <>
      <div className="stack tight">
        <p className="crumbs">
          <Link to="/operators">Operators</Link> / {short(address)}
        </p>
        <h1>Operator</h1>
        <Address value={address} href={<span className="hash whole">{address}</span>} />
      </div>
      {error && !ready ? (
        <ErrorNotice error={error} title="This operator cannot be read." retry={retry} />
      ) : null}
      {ready ? (
        <>
          <OperatorMoney operator={address} />
          <Panel title="Nodes" flush>
            {nodes.length ? (
              <NodeTable nodes={nodes} />
            ) : (
              <Empty title="No node yet" action={<Link to="/operate">Register one</Link>}>
                This wallet has not registered a node.
              </Empty>
            )}
          </Panel>
          <Links nodes={nodes} />
          {nodes.map((node) => (
            <NodeHealth key={node.id} node={node} />
          ))}
          {nodes.map((node) => (
            <LinkHistory key={node.id} node={node} />
          ))}
          <Audits audits={[...data.audits.values()]} nodes={data.nodes} ofManyJobs />
          <PaymentTable payments={[...data.payments.values()]} nodes={data.nodes} />
        </>
      ) : error ? null : (
        <Skeleton height={300} />
      )}
    </>
  );
}
