import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { type ReactNode, useEffect, useState } from 'react';
import { ApiError } from '@/api/client';
import { checkJob } from '@/api/endpoints';
import type { JobCheck, JobRequest } from '@/api/types';
import { Amount, Hash, Panel, Rate } from '@/components/basics';
import { Notice } from '@/components/Notice';
import { count, plural } from '@/lib/format';

const PAUSE_MS = 350;

type Props = { request: JobRequest | null; problem: string | null; escrow: bigint; children: ReactNode };

/** What the requester is about to agree to, with what the server says about it now. */
export function Review({ request, escrow, children }: Props) {
  const { check, error, busy } = useCheck(request);
  return (
    <Panel
      title="Review"
      aside={<span className="muted small">{busy ? 'checking…' : check ? 'checked' : ''}</span>}
    >
      <div className="stack">
        <div>
          <p className="muted small">Lock up to</p>
          <p className="review-cost">
            <Amount base={escrow} />
          </p>
        </div>
        <p>Pay per accepted contribution, by its quality. Unused money returns at the end.</p>
        {check ? <Facts check={check} rate={request?.max_rate ?? '0'} escrow={escrow} /> : null}
        {error ? <CheckError error={error} /> : null}
        {children}
      </div>
    </Panel>
  );
}

/** Asks the server about the request as it stands, once typing pauses. */
function useCheck(request: JobRequest | null) {
  const [settled, setSettled] = useState(request);
  const key = JSON.stringify(request);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the request is compared by its content
  useEffect(() => {
    const timer = setTimeout(() => setSettled(request), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [key]);
  const { data, error, isFetching } = useQuery({
    queryKey: ['check', JSON.stringify(settled)],
    queryFn: ({ signal }) => checkJob(settled as JobRequest, signal),
    enabled: settled !== null,
    placeholderData: keepPreviousData,
    refetchInterval: 10_000,
    retry: false,
  });
  return { check: error ? null : (data ?? null), error, busy: isFetching || key !== JSON.stringify(settled) };
}

function Facts({ check, rate, escrow }: { check: JobCheck; rate: string; escrow: bigint }) {
  const { matching_nodes, online_nodes, cheapest_rate, worst_case_cost, units_per_round, spec } = check;
  const wanted = spec.rounds.nodes;
  return (
    <>
      <dl className="kv" data-testid="check">
        <dt>Nodes that match now</dt>
        <dd>
          <strong>{matching_nodes}</strong> of {online_nodes} online; {wanted} wanted
        </dd>
        <dt>Cheapest standing bid</dt>
        <dd>
          {cheapest_rate === null ? <span className="muted">none</span> : <Rate rate={cheapest_rate} />}
        </dd>
        <dt>Work per node and round</dt>
        <dd>{plural(units_per_round, 'sample')}</dd>
        <dt>Most that it can cost</dt>
        <dd>
          <Amount base={worst_case_cost} />
        </dd>
        <dt>Specification</dt>
        <dd>
          <Hash value={check.spec_hash} label="specification hash" />
        </dd>
      </dl>
      <Advice
        matching={matching_nodes}
        online={online_nodes}
        quorum={spec.rounds.quorum}
        cheapest={cheapest_rate}
        rate={rate}
      />
      {escrow < BigInt(worst_case_cost) ? (
        <Notice tone="warn" title="The escrow may run out">
          All {count(spec.rounds.rounds)} rounds at full quality cost up to <Amount base={worst_case_cost} />.
          The job ends early when the escrow is spent.
        </Notice>
      ) : null}
    </>
  );
}

type AdviceProps = {
  matching: number;
  online: number;
  quorum: number;
  cheapest: string | null;
  rate: string;
};

function Advice({ matching, online, quorum, cheapest, rate }: AdviceProps) {
  if (matching >= quorum) return null;
  if (online === 0) {
    return (
      <Notice tone="warn" title="No node is online">
        You can post the job; it waits, and no money is spent, until nodes come.
      </Notice>
    );
  }
  return (
    <Notice tone="warn" title={`${plural(matching, 'node')} would take this now; a round needs ${quorum}`}>
      {cheapest !== null && BigInt(cheapest) > BigInt(rate) ? (
        <>
          The cheapest asks <Rate rate={cheapest} />. Raise your rate to reach it.
        </>
      ) : (
        'Lower the number of contributions that are enough, or wait for more nodes.'
      )}
    </Notice>
  );
}

function CheckError({ error }: { error: Error }) {
  const problems =
    error instanceof ApiError && Array.isArray(error.data.problems)
      ? (error.data.problems as { field: string; problem: string }[])
      : [];
  return (
    <Notice tone="bad" title={problems.length ? 'The specification is not valid yet' : error.message}>
      {problems.length ? (
        <ul>
          {problems.map(({ field, problem }) => (
            <li key={`${field}${problem}`}>
              <code>{field}</code>: {problem}
            </li>
          ))}
        </ul>
      ) : null}
    </Notice>
  );
}
