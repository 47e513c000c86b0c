import { Link } from 'react-router';
import type { Job } from '@/api/types';
import { Empty, Panel, Skeleton } from '@/components/basics';
import { ErrorNotice } from '@/components/Notice';
import { JobCard } from '@/features/jobs/JobCard';
import { NetworkStrip } from '@/features/operators/NetworkStrip';
import { PaymentFeed } from '@/features/settlement/PaymentFeed';
import { plural } from '@/lib/format';
import type { Entities } from '@/realtime/entities';
import { type LiveTopic, useTopic, useTopics } from '@/realtime/RealtimeProvider';
import { jobTopic, listOf, marketTopic } from '@/realtime/topics';
import { useTitle } from '../useTitle';

/** Jobs whose curve the list follows, too. */
const FOLLOWED = 3;

const ACTIVE = new Set(['running', 'funded']);

export function HomePage() {
  const market = useTopic(marketTopic);
  // A draft is its requester's business until it is funded: the list leaves it out, though its event passes by.
  const jobs = listOf(market.data.jobs, (job) => Date.parse(job.created_at)).filter(
    (job) => job.state !== 'draft',
  );
  const followed = [...jobs]
    .sort((a, b) => Number(ACTIVE.has(b.state)) - Number(ACTIVE.has(a.state)))
    .slice(0, FOLLOWED);
  const details = useTopics(followed.map((job) => jobTopic(job.id)));
  const nodes = [...market.data.nodes.values()];
  const running = jobs.filter((job) => ACTIVE.has(job.state)).length;
  useTitle(running ? `${plural(running, 'job')} running` : '');
  return (
    <>
      <div className="page-head hero">
        <div className="stack">
          <h1>
            {running
              ? `Other people's GPUs are training ${plural(running, 'model')} right now.`
              : "Train neural networks on other people's GPUs."}
          </h1>
          <p className="lede">
            Every contribution is signed by the node that made it, scored on held-out data, and paid on chain
            by its quality, within seconds. Anyone can recompute every payment.
          </p>
        </div>
        <div className="row">
          <Link className="button primary" to="/new">
            Train a model
          </Link>
          <Link className="button" to="/operate">
            Earn with your GPU
          </Link>
        </div>
      </div>
      <NetworkStrip nodes={nodes} ready={market.ready} />
      {market.error && !market.ready ? (
        <ErrorNotice error={market.error} title="The jobs cannot be read." retry={market.retry} />
      ) : null}
      <div className="split">
        <section className="stack" aria-labelledby="jobs-heading">
          <h2 id="jobs-heading">Jobs</h2>
          <Jobs jobs={jobs} ready={market.ready} losses={lossesByJob(followed, details)} />
          <HowItWorks />
        </section>
        <PaymentFeed
          payments={[...market.data.payments.values()]}
          jobs={market.data.jobs}
          nodes={market.data.nodes}
          ready={market.ready}
        />
      </div>
    </>
  );
}

/** The life of a contribution, for somebody who has never seen one. */
function HowItWorks() {
  return (
    <Panel title="How it works">
      <ol className="how">
        <li>
          <strong>Locked</strong>A requester locks the most that a job may cost. Until then nothing runs.
        </li>
        <li>
          <strong>Trained</strong>Nodes with a stake and a bid train for some steps, and sign what they made.
        </li>
        <li>
          <strong>Scored</strong>Each contribution is checked and scored on held-out data; good ones move the
          model.
        </li>
        <li>
          <strong>Paid</strong>The contract checks every signature and credits units × rate × quality. The
          rest returns.
        </li>
      </ol>
    </Panel>
  );
}

function Jobs({
  jobs,
  ready,
  losses,
}: {
  jobs: readonly Job[];
  ready: boolean;
  losses: Map<number, number[]>;
}) {
  if (!ready) {
    return (
      <>
        <Skeleton height={92} />
        <Skeleton height={92} />
      </>
    );
  }
  if (jobs.length === 0) {
    return (
      <Panel flush>
        <Empty
          title="No job has been posted yet"
          action={
            <Link className="button primary" to="/new">
              Post the first job
            </Link>
          }
        >
          A job needs a name, a most that it may cost, and a wallet that locks it. It starts training seconds
          after the escrow is final.
        </Empty>
      </Panel>
    );
  }
  return (
    <div className="jobs">
      {jobs.map((job) => (
        <JobCard key={job.id} job={job} losses={losses.get(job.id) ?? []} />
      ))}
    </div>
  );
}

function lossesByJob(jobs: readonly Job[], details: readonly LiveTopic[]): Map<number, number[]> {
  return new Map(
    jobs.map((job, index) => [job.id, details[index] ? evaluationLosses(job, details[index].data) : []]),
  );
}

function evaluationLosses(job: Job, { rounds }: Entities): number[] {
  const after = listOf(rounds, (round) => -round.number).flatMap((round) => round.metric?.loss ?? []);
  return [...(job.start_metric?.loss ? [job.start_metric.loss] : []), ...after];
}
