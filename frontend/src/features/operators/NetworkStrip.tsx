import { useHead } from '@/api/network';
import type { Node } from '@/api/types';
import { Amount } from '@/components/basics';
import { count } from '@/lib/format';
import { sum } from '@/lib/money';

/** The network in four numbers, each from the nodes' own rows or from the chain. */
export function NetworkStrip({ nodes, ready }: { nodes: readonly Node[]; ready: boolean }) {
  const { network } = useHead();
  const online = nodes.filter((node) => node.state === 'online');
  const working = online.filter((node) => node.working_on !== null).length;
  const units = nodes.reduce((total, node) => total + node.units, 0);
  return (
    <section className="panel" aria-label="The network now">
      <dl className="stats">
        <div className="stat">
          <dt>Nodes online</dt>
          <dd className="big">
            {ready ? online.length : '–'} <small>of {nodes.length}</small>
          </dd>
          <dd className="note">{ready ? `${working} training right now` : ' '}</dd>
        </div>
        <div className="stat">
          <dt>Paid to operators</dt>
          <dd className="big">{ready ? <Amount base={sum(nodes.map((node) => node.earned))} /> : '–'}</dd>
          <dd className="note">all time, sum of every node's earnings on chain</dd>
        </div>
        <div className="stat">
          <dt>Samples trained and paid</dt>
          <dd className="big">{ready ? count(units) : '–'}</dd>
          <dd className="note">each signed by the node that trained it</dd>
        </div>
        <div className="stat">
          <dt>Block</dt>
          <dd className="big">{count(network.indexed_block)}</dd>
          <dd className="note">of {network.chain.name}: the newest final one that was read</dd>
        </div>
      </dl>
    </section>
  );
}
