import type { Fact, Quantity } from '@/api/types';
import { QUANTITIES, sourceOf } from '@/lib/measures';
import { Age, Num } from './basics';

type Props = { of: Quantity; fact?: Omit<Fact, 'samples'> };

/** A measured value, its deviation and age below; who measured it is its title. Many of them fit beside each other. */
export function Measured({ of, fact }: Props) {
  if (!fact) return <Num value={null} />;
  const { text } = QUANTITIES[of];
  return (
    <>
      <Num value={text(fact.value)} title={sourceOf(fact)} />
      <div className="num-source">
        {fact.deviation > 0 ? `± ${text(fact.deviation)}, ` : null}
        <Age at={fact.at} />
      </div>
    </>
  );
}
