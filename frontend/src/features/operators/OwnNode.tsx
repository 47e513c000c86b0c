import { useState } from 'react';
import { useNetwork } from '@/api/network';
import type { Bid, Node, Payment } from '@/api/types';
import { Amount, CopyButton } from '@/components/basics';
import { NodeStateChip, nodeName, Rating } from '@/components/states';
import { useNow } from '@/lib/useNow';
import { BidForm } from './BidForm';
import { evidenceOf } from './evidence';
import { RetireNode } from './Leave';
import { useNodeMoney, waiting } from './money';
import { Withdraw } from './Withdraw';

type Tab = 'bid' | 'withdraw' | 'retire';
type Props = { node: Node; bids: readonly Bid[]; payments: readonly Payment[] };

/** One of the visitor's nodes: is it earning, and if not, why; then what can be done with it. */
export function OwnNode({ node, bids, payments }: Props) {
  const network = useNetwork();
  const now = useNow();
  const money = useNodeMoney(node.id);
  const own = bids.filter((bid) => bid.node_id === node.id);
  const evidence = evidenceOf({ node, bids, payments, network, now });
  const broken = evidence.find((item) => !item.ok && item.fix);
  const [tab, setTab] = useState<Tab | null>(own.length === 0 ? 'bid' : null);
  const toggle = (name: Tab) => setTab(tab === name ? null : name);
  return (
    <article className="panel" data-testid="own-node" data-node-id={node.id} data-state={node.state}>
      <header className="panel-head">
        <h2>{nodeName(node)}</h2>
        <span className="row">
          <NodeStateChip state={node.state} />
          <span className="muted small">{node.device || 'device not reported'}</span>
        </span>
      </header>
      <div className="panel-body stack">
        <div className="row spread">
          <ul className="evidence">
            {evidence.map((item) => (
              <li key={item.text} data-ok={item.ok}>
                <b aria-hidden="true">{item.ok ? '✓' : '!'}</b>
                <span>
                  {item.text}
                  {item === broken ? <span className="muted"> — {item.fix}</span> : null}
                </span>
              </li>
            ))}
          </ul>
          <dl className="kv">
            <dt>Earned, all time</dt>
            <dd>
              <Amount base={node.earned} />
            </dd>
            <dt>Withdrawable now</dt>
            <dd data-testid="node-withdrawable">{money ? <Amount base={money.withdrawable} /> : '–'}</dd>
            <dt>In its challenge window</dt>
            <dd>{money ? <Amount base={waiting(money)} /> : '–'}</dd>
            <dt>Rating</dt>
            <dd>
              <Rating node={node} />
            </dd>
            <dt>Hot key</dt>
            <dd>
              <span className="hash">{node.hot_key.slice(0, 10)}…</span>{' '}
              <CopyButton text={node.hot_key} label="hot key" />
            </dd>
          </dl>
        </div>
        <div className="row">
          <button
            type="button"
            className="button small"
            aria-expanded={tab === 'bid'}
            onClick={() => toggle('bid')}
          >
            {own.length ? 'Change the bid' : 'Post a standing bid'}
          </button>
          <button
            type="button"
            className="button small"
            aria-expanded={tab === 'withdraw'}
            onClick={() => toggle('withdraw')}
            data-testid="withdraw-open"
          >
            Withdraw
          </button>
          <button
            type="button"
            className="button small danger"
            aria-expanded={tab === 'retire'}
            onClick={() => toggle('retire')}
          >
            Retire
          </button>
        </div>
        {tab === 'bid' ? <BidForm node={node} bids={own} /> : null}
        {tab === 'withdraw' ? <Withdraw node={node} /> : null}
        {tab === 'retire' ? <RetireNode node={node} /> : null}
      </div>
    </article>
  );
}
