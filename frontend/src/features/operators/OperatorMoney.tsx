import type { ReactNode } from 'react';
import type { Address } from 'viem';
import { Amount } from '@/components/basics';
import { duration } from '@/lib/format';
import { useStanding, waiting } from './money';

/** Where an operator's money is, as the contract tells it: credited, free, in its challenge window, out, at risk. */
export function OperatorMoney({ operator }: { operator: Address }) {
  const money = useStanding(operator);
  return (
    <section className="panel" aria-label="Where the money is" data-testid="operator-money">
      <dl className="stats">
        <Stat title="Credited, all time" amount={money?.earned} note="by all nodes, on chain" />
        <Stat
          title="Withdrawable now"
          amount={money?.withdrawable}
          note={
            money ? (
              <>
                free, and up to {Number(money.instantShare) / 100} % of the stake early;{' '}
                <Amount base={money.advance} /> taken early so far
              </>
            ) : null
          }
        />
        <Stat
          title="In its challenge window"
          amount={money ? waiting(money) : undefined}
          note={money ? `free ${duration(Number(money.challengeWindow))} after it is marked` : null}
        />
        <Stat
          title="Withdrawn"
          amount={money ? money.earned - money.credit : undefined}
          note="or taken by a penalty"
        />
        <Stat
          title="Stake at risk"
          amount={money?.atRisk}
          note="yours; a proven fault can reach it, also while it unbonds"
        />
      </dl>
    </section>
  );
}

function Stat({ title, amount, note }: { title: string; amount: bigint | undefined; note: ReactNode }) {
  return (
    <div className="stat">
      <dt>{title}</dt>
      <dd className="big">{amount === undefined ? '–' : <Amount base={amount} />}</dd>
      <dd className="note">{note}</dd>
    </div>
  );
}
