import { useQuery } from '@tanstack/react-query';
import { type ReactNode, useEffect } from 'react';
import { Link, useNavigate } from 'react-router';
import { useNetwork } from '@/api/network';
import type { Job } from '@/api/types';
import { createJob } from '@/chain/contracts';
import { useTransaction, useWallet } from '@/chain/hooks';
import { Amount, Hash, Panel, Rate } from '@/components/basics';
import { Notice } from '@/components/Notice';
import { PaidAction } from '@/components/PaidAction';
import { JobStateChip } from '@/components/states';
import { canonicalJson, sha256Hex } from '@/lib/canonical';
import { formatUnits } from '@/lib/money';
import { Plan } from './Plan';

/** Locks a draft's escrow on chain. Goes to the job as soon as the server has seen it final. */
export function FundJob({ job, gate }: { job: Job; gate: (children: ReactNode) => ReactNode }) {
  const network = useNetwork();
  const navigate = useNavigate();
  const wallet = useWallet();
  const key = `create job ${job.id}`;
  const transaction = useTransaction(key);
  const hash = useQuery({
    queryKey: ['spec-hash', job.id, job.spec_hash],
    queryFn: () => sha256Hex(canonicalJson(job.spec)),
    staleTime: Number.POSITIVE_INFINITY,
  });
  useEffect(() => {
    if (job.state !== 'draft') navigate(`/jobs/${job.id}`, { replace: true });
  }, [job.state, job.id, navigate]);
  const forged = typeof hash.data === 'string' && hash.data !== job.spec_hash;
  const foreign = wallet.address !== null && wallet.address.toLowerCase() !== job.requester.toLowerCase();
  const title = `Lock ${formatUnits(job.escrow, network.token.decimals)} ${network.token.symbol} and start`;
  return (
    <div className="stack" style={{ maxWidth: 720 }}>
      {job.reason === null ? <Plan job={job} /> : null}
      <Panel title={`Fund ${job.name}`} aside={<JobStateChip state={job.state} />}>
        <div className="stack">
          <p>
            The contract holds the escrow and pays each accepted contribution by its quality. What is left
            returns to you when the job ends. Until the escrow is final, nothing runs and nothing is owed.
          </p>
          <dl className="kv">
            <dt>Lock up to</dt>
            <dd>
              <strong>
                <Amount base={job.escrow} />
              </strong>
            </dd>
            <dt>Rate, at most</dt>
            <dd>
              <Rate rate={job.max_rate} />
            </dd>
            <dt>Nodes</dt>
            <dd>
              {job.goal === 'time' ? 'the fastest first' : 'the cheapest first'}
              {job.finish_by ? `, to be finished by ${new Date(job.finish_by).toLocaleString()}` : ''}
            </dd>
            <dt>Specification</dt>
            <dd>
              <Hash value={job.spec_hash} label="specification hash" />
              {hash.data === job.spec_hash ? (
                <span className="small muted"> recomputed by your browser ✓</span>
              ) : null}
            </dd>
          </dl>
          {job.reason !== null ? (
            <Notice tone="bad" title="This job cannot run. Do not fund it.">
              {job.reason}
            </Notice>
          ) : forged ? (
            <Notice tone="bad" title="The specification does not match its hash">
              Your browser computes another hash for this specification than the server names. Do not fund it.
            </Notice>
          ) : foreign ? (
            <Notice tone="warn" title="Another wallet wrote this draft">
              Connect the wallet {job.requester} to fund it.
            </Notice>
          ) : (
            gate(
              <PaidAction
                id={key}
                amount={BigInt(job.escrow)}
                title={title}
                call={createJob(network, {
                  spec: `0x${job.spec_hash}`,
                  escrow: BigInt(job.escrow),
                  maxRate: BigInt(job.max_rate),
                })}
                disabled={transaction?.stage === 'recorded'}
                testId="fund-submit"
              />,
            )
          )}
          {transaction?.stage === 'recorded' ? (
            <p role="status">The escrow is final. The job starts in a moment…</p>
          ) : null}
          <p className="small">
            <Link to={`/jobs/${job.id}`}>Look at the draft</Link>
          </p>
        </div>
      </Panel>
    </div>
  );
}
