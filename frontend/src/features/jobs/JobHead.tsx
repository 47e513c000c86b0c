import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { Link } from 'react-router';
import { stopJob } from '@/api/endpoints';
import { useSession } from '@/api/session';
import type { Job } from '@/api/types';
import { Address, Age, Amount } from '@/components/basics';
import { Dialog } from '@/components/Dialog';
import { ErrorNotice, Notice } from '@/components/Notice';
import { JobStateChip, jobMeaning } from '@/components/states';
import { Runway } from './Runway';

export function JobHead({ job }: { job: Job }) {
  const session = useSession();
  const mine = session?.toLowerCase() === job.requester.toLowerCase();
  return (
    <>
      <div className="page-head">
        <div className="stack tight">
          <p className="crumbs">
            <Link to="/">Jobs</Link> /{' '}
            {job.chain_id === null ? 'not on chain yet' : `job ${job.chain_id} on chain`}
          </p>
          <div className="row">
            <h1>{job.name}</h1>
            <span data-testid="job-state" data-state={job.state}>
              <JobStateChip state={job.state} />
            </span>
          </div>
          <p className="row muted small">
            {job.spec.model.architecture} on {job.data_source}
            <span>
              posted <Age at={job.created_at} />
            </span>
            <Address value={job.requester} />
          </p>
        </div>
        <div className="row">
          {job.state === 'draft' && mine ? (
            <Link className="button primary" to={`/new?job=${job.id}`}>
              Fund this job
            </Link>
          ) : null}
          <Link className="button" to={`/new?like=${job.id}`}>
            Post one like it
          </Link>
          {mine && ['running', 'paused', 'funded'].includes(job.state) ? <StopJob job={job} /> : null}
        </div>
      </div>
      <StateNotice job={job} />
      <Runway job={job} />
    </>
  );
}

function StateNotice({ job }: { job: Job }) {
  if (job.state === 'failed' || job.state === 'stopped') {
    return (
      <Notice
        tone={job.state === 'failed' ? 'bad' : 'warn'}
        title={job.state === 'failed' ? 'This job failed' : 'This job was stopped'}
      >
        {job.reason ?? jobMeaning(job.state)} Accepted work is paid
        {job.refund === null ? '; what is left of the escrow is returned when everything is settled.' : null}
        {job.refund === null ? null : (
          <>
            ; <Amount base={job.refund} /> went back to the requester.
          </>
        )}
      </Notice>
    );
  }
  if (job.state === 'draft') return <Notice title="A draft">{jobMeaning('draft')}</Notice>;
  return null;
}

function StopJob({ job }: { job: Job }) {
  const [open, setOpen] = useState(false);
  const stop = useMutation({ mutationFn: () => stopJob(job.id), onSuccess: () => setOpen(false) });
  const rest = BigInt(job.escrow) - BigInt(job.spent);
  return (
    <>
      <button type="button" className="button danger" onClick={() => setOpen(true)}>
        Stop
      </button>
      <Dialog open={open} title={`Stop ${job.name}?`} close={() => setOpen(false)}>
        <p>
          No further round opens. Work that is accepted is still paid; at most <Amount base={rest} /> come
          back to you when it is settled.
        </p>
        {stop.error ? <ErrorNotice error={stop.error} /> : null}
        <div className="row">
          <button
            type="button"
            className="button primary"
            disabled={stop.isPending}
            onClick={() => stop.mutate()}
          >
            {stop.isPending ? 'Stopping…' : 'Stop and settle'}
          </button>
          <button type="button" className="button" onClick={() => setOpen(false)}>
            Keep it running
          </button>
        </div>
      </Dialog>
    </>
  );
}
