import { useState } from 'react';
import { useNetwork } from '@/api/network';
import type { Job } from '@/api/types';
import { fundJob } from '@/chain/contracts';
import { useWallet } from '@/chain/hooks';
import { Amount } from '@/components/basics';
import { Field } from '@/components/Field';
import { Notice } from '@/components/Notice';
import { PaidAction } from '@/components/PaidAction';
import { plural } from '@/lib/format';
import { formatUnits, parseUnits } from '@/lib/money';
import { worstCase } from './draft';
import { missingFor, runsLow } from './runway';

/** Whether the escrow still covers what is to come; where it does not, what is missing, and the way to add it. */
export function Runway({ job }: { job: Job }) {
  if (job.state !== 'paused' && !runsLow(job)) return null;
  const paused = job.state === 'paused';
  return (
    <Notice
      tone={paused ? 'bad' : 'warn'}
      title={
        paused
          ? 'Paused: the escrow does not cover another round'
          : `The escrow covers ${plural(job.runway ?? 0, 'more round')} of ${job.rounds - job.round}`
      }
    >
      <div className="stack" data-testid="runway" data-paused={paused}>
        <p>
          {paused ? (
            <>
              <Amount base={job.shortfall ?? '0'} /> more are needed for the next round. No work is begun that
              could not be paid; what is accepted is paid.
            </>
          ) : (
            <>Add to it before it is used up, or the job pauses. What is not spent comes back.</>
          )}
        </p>
        <TopUp job={job} />
      </div>
    </Notice>
  );
}

function TopUp({ job }: { job: Job }) {
  const network = useNetwork();
  const wallet = useWallet();
  const { decimals, symbol } = network.token;
  const wanted = missingFor(job, worstCase(job.spec, BigInt(job.max_rate)));
  const [typed, setTyped] = useState<string | null>(null);
  const amount = typed === null ? wanted : parseUnits(typed, decimals);
  if (job.chain_id === null || !wallet.address) return null;
  return (
    <>
      <Field
        label="Add to the escrow"
        unit={symbol}
        inputMode="decimal"
        value={typed ?? formatUnits(wanted, decimals)}
        onChange={(event) => setTyped(event.target.value)}
        hint="Enough for all rounds that are left, at their most. Anybody may add; what is left goes to the requester."
        error={amount === null || amount === 0n ? 'An amount above zero.' : undefined}
        data-testid="top-up-amount"
      />
      {amount ? (
        <PaidAction
          id={`fund ${job.id}`}
          amount={amount}
          title={`Add ${formatUnits(amount, decimals)} ${symbol}`}
          call={fundJob(network, job.chain_id, amount)}
          testId="top-up-submit"
        />
      ) : null}
    </>
  );
}
