/** What a node was given in a round, and why: predicted beside what it took. */

import type { Part } from '@/api/types';
import { duration } from '@/lib/format';
import { errorOf, secondsOf } from '@/lib/parts';
import { Chip, Num } from './basics';

type Reasons = readonly { code: string; text: string }[];

/** Each decision's reason, as the coordinator wrote it down when it decided. */
export function Why({ reasons, label = 'Why' }: { reasons: Reasons; label?: string }) {
  if (reasons.length === 0) return <span className="muted">no reason was recorded</span>;
  return (
    <details data-testid="why">
      <summary className="small">{label}</summary>
      <ul className="small">
        {reasons.map((reason) => (
          <li key={reason.code + reason.text} data-code={reason.code}>
            {reason.text}
          </li>
        ))}
      </ul>
    </details>
  );
}

type Given = Pick<Part, 'steps' | 'encoding' | 'origin'>;

export function Share({ steps, encoding, origin }: Given) {
  return (
    <span className="row">
      <span className="num">
        {steps} steps, {encoding}
      </span>
      {origin === null ? null : (
        <Chip tone="warn" title="It missed the close of that round, and counts here with less weight.">
          of round {origin}
        </Chip>
      )}
    </span>
  );
}

const PHASES = [
  ['fetch_s', 'fetch'],
  ['compute_s', 'compute'],
  ['upload_s', 'upload'],
] as const;

type Seconds = Part['predicted'] | Part['actual'];

/** Seconds in all, and below them by phase. */
export function Phases({ seconds, source }: { seconds: Seconds; source: string }) {
  if (!seconds) return <Num value={null} />;
  return (
    <>
      <Num value={duration(secondsOf(seconds))} title={source} />
      <div className="num-source">
        {PHASES.map(([key, name]) => `${name} ${duration(seconds[key])}`).join(' · ')}
      </div>
    </>
  );
}

/** How far the prediction was off what was measured. */
export function PredictionError({ predicted, actual }: Pick<Part, 'predicted' | 'actual'>) {
  const error = errorOf(predicted, actual);
  if (error === null) return <Num value={null} />;
  const text = `${error > 0 ? '+' : ''}${Math.round(100 * error)} %`;
  return <Num value={text} title="what it took beside what was predicted; it widens the next prediction" />;
}
