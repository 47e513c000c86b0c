import type { Node } from '@/api/types';
import { Amount } from '@/components/basics';
import { sum } from '@/lib/money';

type Props = { stake: string | bigint; nodes: readonly Node[] };

/** Where an operator's money is: earned, ready to withdraw, locked. */
export function OperatorMoney({ stake, nodes }: Props) {
  const earned = sum(nodes.map((node) => node.earned));
  const credit = sum(nodes.map((node) => node.credit));
  return (
    <section className="panel" aria-label="Where the money is">
      <dl className="stats">
        <div className="stat">
          <dt>Earned, all time</dt>
          <dd className="big">
            <Amount base={earned} />
          </dd>
          <dd className="note">by {nodes.length === 1 ? 'one node' : `${nodes.length} nodes`}, on chain</dd>
        </div>
        <div className="stat">
          <dt>Ready to withdraw</dt>
          <dd className="big">
            <Amount base={credit} />
          </dd>
          <dd className="note">credit in the contract</dd>
        </div>
        <div className="stat">
          <dt>Already withdrawn</dt>
          <dd className="big">
            <Amount base={earned - credit} />
          </dd>
          <dd className="note">earned less credit</dd>
        </div>
        <div className="stat">
          <dt>Locked as stake</dt>
          <dd className="big">
            <Amount base={stake} />
          </dd>
          <dd className="note">yours; free after the nodes retire and the unbonding time</dd>
        </div>
      </dl>
    </section>
  );
}
