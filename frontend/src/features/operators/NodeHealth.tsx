import { Link } from 'react-router';
import type { Choice, Node } from '@/api/types';
import { Bar, Chip, Panel, type Tone } from '@/components/basics';
import { Phases, PredictionError, Share, Why } from '@/components/Parts';
import { nodeName } from '@/components/states';

type Health = NonNullable<Node['health']>;

const LEVELS: Record<Health['level'], { tone: Tone; text: string }> = {
  high: { tone: 'ok', text: 'high priority' },
  normal: { tone: 'ok', text: 'takes part in full' },
  low: { tone: 'warn', text: 'reduced part' },
  probation: { tone: 'warn', text: 'on probation' },
  excluded: { tone: 'bad', text: 'left out for a while' },
};
const PARTS = [
  ['compute', 'Speed beside the median'],
  ['network', 'Orders kept, times what gets through'],
  ['quality', 'Quality of its gradients'],
  ['uptime', 'Part of the time it was heard'],
] as const;

/** How the newest plan judged a node and what it gave it, and which jobs took it; nothing before any has looked at it. */
export function NodeHealth({ node }: { node: Node }) {
  const { health, part, choices } = node;
  if (!health && !part && choices.length === 0) return null;
  return (
    <Panel title={`${nodeName(node)}: its part and why`} aside={health ? <Level health={health} /> : null}>
      <div className="stack" data-testid="node-health" data-node-id={node.id}>
        {health ? <Score health={health} /> : null}
        {part ? (
          <dl className="kv">
            <dt>Newest part</dt>
            <dd>
              <Link to={`/jobs/${part.job_id}?round=${part.round}`}>
                job {part.job_id}, round {part.round}
              </Link>{' '}
              <Share {...part} />
            </dd>
            <dt>Predicted</dt>
            <dd>
              <Phases
                seconds={part.predicted}
                source="predicted from what was measured of the node and its link"
              />
            </dd>
            <dt>Took</dt>
            <dd>
              <Phases
                seconds={part.actual}
                source="by the coordinator's clock; seconds of computing are the node's word within it"
              />
            </dd>
            <dt>Off by</dt>
            <dd>
              <PredictionError {...part} />
            </dd>
          </dl>
        ) : null}
        {part ? <Why reasons={part.reasons} /> : null}
        {choices.length ? <Jobs choices={choices} /> : null}
      </div>
    </Panel>
  );
}

/** Which jobs took the node, which did not, and why. */
function Jobs({ choices }: { choices: readonly Choice[] }) {
  return (
    <ul className="small" data-testid="choices">
      {choices.map((choice) => (
        <li key={choice.job_id} data-code={choice.code}>
          <Link to={`/jobs/${choice.job_id}`}>job {choice.job_id}</Link>{' '}
          {choice.taken ? 'works with it' : 'passed it over'} since {new Date(choice.at).toLocaleString()}:{' '}
          {choice.text}
        </li>
      ))}
    </ul>
  );
}

function Level({ health }: { health: Health }) {
  const { tone, text } = LEVELS[health.level];
  return (
    <Chip tone={tone} title={health.reason.text}>
      health {health.score.toFixed(2)}, {text}
    </Chip>
  );
}

function Score({ health }: { health: Health }) {
  return (
    <>
      <p className="small">{health.reason.text}</p>
      <dl className="kv">
        {PARTS.map(([key, label]) => (
          <div key={key} style={{ display: 'contents' }}>
            <dt>{label}</dt>
            <dd>
              <span className="num">{Math.round(100 * health.parts[key])} %</span>
              <Bar value={100 * health.parts[key]} label={label} />
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}
