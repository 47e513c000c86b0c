import { Link } from 'react-router';
import { Empty, Panel, Skeleton } from '@/components/basics';
import { ErrorNotice } from '@/components/Notice';
import { NetworkStrip } from '@/features/operators/NetworkStrip';
import { NodeTable } from '@/features/operators/NodeTable';
import { Pairs } from '@/features/operators/Pairs';
import { useTopic } from '@/realtime/RealtimeProvider';
import { listOf, marketTopic } from '@/realtime/topics';
import { useTitle } from '../useTitle';

export function OperatorsPage() {
  const market = useTopic(marketTopic);
  const nodes = listOf(market.data.nodes, (node) => (node.state === 'online' ? 1e9 : 0) - node.id);
  useTitle('Operators');
  return (
    <>
      <div className="page-head">
        <div className="stack tight">
          <h1>Operators</h1>
          <p className="lede">
            Wallets that have staked and the nodes they run, one for each GPU. Speed and round trip are
            measured, and say by whom; what it earned is on chain.
          </p>
        </div>
        <Link className="button primary" to="/operate">
          Earn with your GPU
        </Link>
      </div>
      <NetworkStrip nodes={nodes} ready={market.ready} />
      <Panel title="Nodes" flush>
        {market.ready ? (
          nodes.length ? (
            <NodeTable nodes={nodes} withOperator />
          ) : (
            <Empty title="No node is registered yet" action={<Link to="/operate">Be the first</Link>}>
              A node is a GPU (or a CPU) with a stake behind it. Registering takes a wallet and a few minutes.
            </Empty>
          )
        ) : market.error ? (
          <ErrorNotice error={market.error} retry={market.retry} />
        ) : (
          <Skeleton height={220} />
        )}
      </Panel>
      <Pairs nodes={nodes} />
    </>
  );
}
