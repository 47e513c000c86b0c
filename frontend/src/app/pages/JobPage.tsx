import { useState } from 'react';
import { Link, useParams, useSearchParams } from 'react-router';
import { ApiError } from '@/api/client';
import { Audits } from '@/components/Audits';
import { Skeleton } from '@/components/basics';
import { Links } from '@/components/Links';
import { ErrorNotice } from '@/components/Notice';
import { JobConfig } from '@/features/jobs/JobConfig';
import { JobHead } from '@/features/jobs/JobHead';
import { JobNumbers } from '@/features/jobs/JobNumbers';
import { AcceptRounds } from '@/features/settlement/AcceptRounds';
import { Ledger, Rejected } from '@/features/settlement/Ledger';
import { Curves } from '@/features/training/Curves';
import { Deterrence } from '@/features/training/Deterrence';
import { etaOf } from '@/features/training/eta';
import { JobNodes } from '@/features/training/JobNodes';
import { Pipeline } from '@/features/training/Pipeline';
import { RoundPlan } from '@/features/training/RoundPlan';
import { Versions } from '@/features/training/Versions';
import { formatMetric, metricValue } from '@/lib/metric';
import { useNow } from '@/lib/useNow';
import { useLink, useTopic } from '@/realtime/RealtimeProvider';
import { jobTopic } from '@/realtime/topics';
import { useTitle } from '../useTitle';
import { NotFoundPage } from './NotFoundPage';

export function JobPage() {
  const id = Number(useParams().id);
  return Number.isSafeInteger(id) && id > 0 ? <LiveJob key={id} id={id} /> : <NotFoundPage />;
}

function LiveJob({ id }: { id: number }) {
  const topic = useTopic(jobTopic(id));
  const { data: entities, ready, error } = topic;
  const link = useLink();
  const now = useNow();
  const [query, setQuery] = useSearchParams();
  const job = entities.jobs.get(id);
  const metric = job ? formatMetric(metricValue(job.metric, job.target.metric), job.target.metric) : '';
  useTitle(
    job ? `${job.round}/${job.rounds} · ${metric} · ${job.name}` : `Job ${id}`,
    job ? (100 * job.round) / Math.max(1, job.rounds) : null,
  );
  // The chosen round is part of the address, so that a link to it can be shared.
  const round = query.has('round') ? Number(query.get('round')) : null;
  const pickRound = (number: number | null) => {
    const next = new URLSearchParams(query);
    if (number === null) next.delete('round');
    else next.set('round', String(number));
    setQuery(next, { replace: true, preventScrollReset: true });
  };
  if (!ready || !job) {
    if (error instanceof ApiError && error.status === 404) return <NotFoundPage />;
    return error ? (
      <ErrorNotice error={error} title="This job cannot be read." retry={topic.retry} />
    ) : (
      <Loading />
    );
  }
  const rounds = [...entities.rounds.values()];
  return (
    <>
      <JobHead job={job} />
      <nav className="tabs" aria-label="Parts of this job">
        <Tab name="Overview" tab={null} />
        <Tab name="Configuration" tab="config" />
      </nav>
      <div className={link.state === 'offline' ? 'stack wide stale' : 'stack wide'}>
        {query.get('tab') === 'config' ? (
          <JobConfig job={job} rounds={rounds} />
        ) : (
          <>
            <JobNumbers
              job={job}
              nodes={[...entities.nodes.values()]}
              eta={etaOf(job, rounds, now)}
              now={now}
            />
            <Pipeline job={job} entities={entities} />
            <Curves job={job} entities={entities} round={round} pickRound={pickRound} />
            <JobNodes job={job} entities={entities} />
            <RoundPlan entities={entities} round={round} />
            <Links nodes={[...entities.nodes.values()]} />
            <Ledger job={job} entities={entities} round={round} pickRound={pickRound} />
            <Versions job={job} entities={entities} />
            <AcceptRounds job={job} rounds={rounds} />
            <Rejected entities={entities} />
            <Deterrence job={job} entities={entities} />
            <Audits audits={[...entities.audits.values()]} nodes={entities.nodes} />
          </>
        )}
      </div>
    </>
  );
}

function Tab({ name, tab }: { name: string; tab: string | null }) {
  const [query] = useSearchParams();
  return (
    <Link
      to={tab ? `?tab=${tab}` : '?'}
      aria-current={query.get('tab') === tab ? 'page' : undefined}
      preventScrollReset
    >
      {name}
    </Link>
  );
}

function Loading() {
  const [heights] = useState([64, 120, 130, 360, 240]);
  return (
    <>
      <p className="visually-hidden" role="status">
        Reading the job…
      </p>
      {heights.map((height) => (
        <Skeleton key={height} height={height} />
      ))}
    </>
  );
}
