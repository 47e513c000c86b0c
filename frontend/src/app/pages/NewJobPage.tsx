import { useQuery } from '@tanstack/react-query';
import { useSearchParams } from 'react-router';
import { fetchJob } from '@/api/endpoints';
import { Skeleton } from '@/components/basics';
import { ErrorNotice } from '@/components/Notice';
import { Gate } from '@/features/accounts/Account';
import { FundJob } from '@/features/jobs/FundJob';
import { NewJob } from '@/features/jobs/NewJob';
import { useTopic } from '@/realtime/RealtimeProvider';
import { jobTopic } from '@/realtime/topics';
import { useTitle } from '../useTitle';

/** Writes a job; with `?job=` funds a draft; with `?like=` starts from another job. Each survives a reload. */
export function NewJobPage() {
  const [query] = useSearchParams();
  const draft = Number(query.get('job') ?? 0);
  const like = Number(query.get('like') ?? 0);
  useTitle('Train a model');
  return (
    <>
      <div className="stack tight">
        <h1>{draft ? 'Fund the job' : 'Train a model'}</h1>
        <p className="lede">
          {draft
            ? 'Two signatures in your wallet: one allows the exact amount, one locks it.'
            : 'Say what to train and what it may cost at most. Nothing is spent before you lock the escrow in your wallet.'}
        </p>
      </div>
      {draft ? (
        <Fund id={draft} />
      ) : like ? (
        <NewLike id={like} />
      ) : (
        <NewJob like={null} gate={<Gate need="session">{null}</Gate>} />
      )}
    </>
  );
}

function Fund({ id }: { id: number }) {
  const { data, error, retry } = useTopic(jobTopic(id));
  const job = data.jobs.get(id);
  if (job) return <FundJob job={job} gate={(children) => <Gate need="wallet">{children}</Gate>} />;
  return error ? (
    <ErrorNotice error={error} title="The draft cannot be read." retry={retry} />
  ) : (
    <Skeleton height={280} />
  );
}

function NewLike({ id }: { id: number }) {
  const { data, error } = useQuery({
    queryKey: ['like', id],
    queryFn: () => fetchJob(id),
    staleTime: Number.POSITIVE_INFINITY,
  });
  if (data) return <NewJob like={data.job} gate={<Gate need="session">{null}</Gate>} />;
  return error ? <ErrorNotice error={error} /> : <Skeleton height={400} />;
}
