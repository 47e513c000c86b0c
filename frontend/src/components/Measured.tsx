import type { Fact, Quantity } from '@/api/types';
import { QUANTITIES, sourceOf } from '@/lib/measures';
import { Age, Num } from './basics';

type Props = { of: Quantity; fact?: Omit<Fact, 'samples'> };

/** A measured value; below it its deviation, whether only the node says so, and its age. Its title says how it was measured. */
export function Measured({ of, fact }: Props) {
  if (!fact) return <Num value={null} />;
  const { text } = QUANTITIES[of];
  return (
    <>
      <Num value={text(fact.value)} title={sourceOf(fact)} />
      <div className="num-source">
        {fact.deviation > 0 ? `± ${text(fact.deviation)} ` : null}
        {fact.claimed ? '(node) ' : null}
        <Age at={fact.at} />
      </div>
    </>
  );
}
