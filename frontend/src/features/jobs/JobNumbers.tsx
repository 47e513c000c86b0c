import type { Job, Node } from '@/api/types';
import { Amount, Bar, Chip } from '@/components/basics';
import { standingOf } from '@/lib/deadline';
import { duration, durations, plural } from '@/lib/format';
import { formatMetric, metricValue, towards } from '@/lib/metric';
import { percent } from '@/lib/money';

type Props = {
  job: Job;
  nodes: readonly Node[];
  /** Seconds left, as a range; null when nothing can be said. */
  eta: { from: number; to: number; rounds: number } | null;
  now: number;
};

/** The four numbers that answer: how good, how far, how much, by whom. */
export function JobNumbers({ job, nodes, eta, now }: Props) {
  const name = job.target.metric;
  const value = metricValue(job.metric, name);
  const start = metricValue(job.start_metric, name);
  const deadline = standingOf(job, eta, now);
  const online = nodes.filter((node) => node.state === 'online').length;
  return (
    <section className="panel" aria-label="Where the job stands">
      <dl className="stats">
        <div className="stat">
          <dt>{name === 'accuracy' ? 'Accuracy on held-out data' : 'Loss on held-out data'}</dt>
          <dd className="big" data-testid="metric-now">
            {formatMetric(value, name)}
          </dd>
          <dd>
            <Bar
              value={towards(start, value, job.target.value)}
              label="Way from the start to the target"
              tone={job.reached_target ? 'ok' : undefined}
            />
          </dd>
          <dd className="note">
            from {formatMetric(start, name)} to target {formatMetric(job.target.value, name)}
            {job.reached_target ? ', reached ✓' : ''}
          </dd>
        </div>
        <div className="stat">
          <dt>Rounds</dt>
          <dd className="big">
            {job.round} <small>of {job.rounds}</small>
          </dd>
          <dd>
            <Bar
              value={(100 * job.round) / Math.max(1, job.rounds)}
              label="Rounds done"
              tone={job.round >= job.rounds ? 'ok' : undefined}
            />
          </dd>
          <dd className="note">{eta ? etaText(eta) : endText(job)}</dd>
          {job.predicted ? <Foreseen job={job} predicted={job.predicted} /> : null}
          {job.finish_by && deadline ? (
            <dd className="note" data-testid="deadline">
              to be finished by {new Date(job.finish_by).toLocaleString()}:{' '}
              <Chip tone={deadline.tone}>{deadline.text}</Chip>
            </dd>
          ) : null}
        </div>
        <div className="stat">
          <dt>Spent of the escrow</dt>
          <dd className="big">
            <Amount base={job.spent} />
          </dd>
          <dd>
            <Bar
              value={percent(job.spent, job.escrow)}
              label="Part of the escrow that is spent"
              text={`${percent(job.spent, job.escrow)} %`}
            />
          </dd>
          <dd className="note">
            of <Amount base={job.escrow} />
            {job.refund === null ? (
              job.runway === null || !['running', 'paused'].includes(job.state) ? (
                ', the rest is returned at the end'
              ) : (
                <span data-testid="runway-rounds">, enough for {plural(job.runway, 'more round')}</span>
              )
            ) : (
              <>
                , <Amount base={job.refund} /> returned
              </>
            )}
          </dd>
        </div>
        <div className="stat">
          <dt>Nodes online</dt>
          <dd className="big">
            {online} <small>of {nodes.length} seated</small>
          </dd>
          <dd className="note">
            {job.spec.rounds.nodes} wanted in a round, {job.spec.rounds.quorum} are enough at its deadline
          </dd>
        </div>
      </dl>
    </section>
  );
}

/** What the whole job was expected to come to when its first round opened, beside what it came to. */
function Foreseen({ job, predicted }: { job: Job; predicted: NonNullable<Job['predicted']> }) {
  const took = job.completed_at ? (Date.parse(job.completed_at) - Date.parse(predicted.at)) / 1000 : null;
  const done = took !== null && job.round >= job.rounds;
  return (
    <dd className="note" data-testid="predicted">
      predicted {duration(predicted.seconds)}
      {predicted.low_seconds !== undefined && predicted.high_seconds !== undefined
        ? ` (${durations(predicted.low_seconds, predicted.high_seconds)})`
        : ''}{' '}
      and at most <Amount base={predicted.price} /> with {plural(predicted.nodes, 'node')}
      {predicted.basis === 'assumed' ? '; nobody had measured them before' : ''}
      {predicted.basis === 'others' ? '; not all of them had kept an order before' : ''}
      {done ? (
        <>
          ; took {duration(took)} and <Amount base={job.spent} />
        </>
      ) : null}
    </dd>
  );
}

function etaText({ from, to, rounds }: { from: number; to: number; rounds: number }): string {
  return `${durations(from, to)} left at the pace of the last ${rounds === 1 ? 'round' : `${rounds} rounds`}`;
}

function endText(job: Job): string {
  if (job.completed_at && job.first_step_at) {
    return `trained in ${duration((Date.parse(job.completed_at) - Date.parse(job.first_step_at)) / 1000)}`;
  }
  if (job.state === 'running' || job.state === 'funded') return 'an estimate follows after the first round';
  return job.reason ?? '';
}
