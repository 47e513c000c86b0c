import { Link } from 'react-router';
import type { Job } from '@/api/types';
import { Age, Amount, Bar } from '@/components/basics';
import { Sparkline } from '@/components/Sparkline';
import { JobStateChip } from '@/components/states';
import { plural } from '@/lib/format';
import { formatMetric, metricValue } from '@/lib/metric';

/** One job in the list; `losses` are its evaluation losses, oldest first, where the page follows them. */
export function JobCard({ job, losses }: { job: Job; losses: readonly number[] }) {
  const name = job.target.metric;
  const now = metricValue(job.metric, name);
  return (
    <article className="panel job-card" data-testid="job-card" data-state={job.state}>
      <div className="stack tight">
        <div className="row">
          <h3>
            <Link to={`/jobs/${job.id}`}>{job.name}</Link>
          </h3>
          <JobStateChip state={job.state} />
        </div>
        <p className="small muted">
          {job.spec.model.architecture} on {job.data_source} · <Age at={job.created_at} />
        </p>
      </div>
      <div className="stack tight">
        <p className="figure">{formatMetric(now, name)}</p>
        <p className="small muted">
          {name} · target {formatMetric(job.target.value, name)}
          {job.reached_target ? ' ✓' : ''}
        </p>
      </div>
      <div className="stack tight">
        <Bar
          value={(100 * job.round) / Math.max(1, job.rounds)}
          label={`Rounds of ${job.name}`}
          tone={job.state === 'completed' || job.state === 'closed' ? 'ok' : undefined}
          text={`${job.round} of ${plural(job.rounds, 'round')}`}
        />
        <p className="small muted num">
          {job.round} of {plural(job.rounds, 'round')}
        </p>
        <p className="small muted">
          <Amount base={job.spent} bare /> of <Amount base={job.escrow} /> spent
        </p>
      </div>
      <div className="spark">
        <Sparkline values={losses} label={`Evaluation loss of ${job.name} by round`} />
      </div>
    </article>
  );
}
