import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { useReadContract } from 'wagmi';
import { ApiError } from '@/api/client';
import { fetchSettlement } from '@/api/endpoints';
import { useNetwork } from '@/api/network';
import type { Contribution, Job, Payment } from '@/api/types';
import { computeMarketAbi } from '@/chain/abi';
import { Address, Amount, Rate } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { ErrorNotice } from '@/components/Notice';
import { TransactionHash } from '@/components/TransactionPanel';
import { count, quality } from '@/lib/format';
import { reward } from '@/lib/money';
import { type Judging, judgingOf } from './judging';

type Props = { job: Job; contribution: Contribution; payment: Payment };

/** Why a contribution was paid what it was: who scored it how, the median, and the sum, recomputed here. */
export function PaymentDetail({ job, contribution, payment }: Props) {
  const settlement = useQuery({
    queryKey: ['settlement', job.id, payment.round, payment.state],
    queryFn: () => fetchSettlement(job.id, payment.round),
    enabled: payment.state !== 'attesting',
    retry: false,
  });
  const judging = settlement.data ? judgingOf(settlement.data, payment.node_id) : null;
  const unknown = settlement.error instanceof ApiError && settlement.error.status === 404;
  return (
    <div className="stack" data-testid="payment-detail">
      <dl className="kv">
        {contribution.recorded_tx ? (
          <Row title="Recorded on chain">
            <TransactionHash hash={contribution.recorded_tx} />{' '}
            <span className="muted small">as it arrived; its most was reserved in the escrow</span>
          </Row>
        ) : null}
        <Row title="Paid by">
          {payment.tx_hash ? <TransactionHash hash={payment.tx_hash} /> : 'not sent yet'}
        </Row>
        <Row title="Work">
          {count(payment.units)} samples at <Rate rate={payment.rate} />
        </Row>
        {contribution.standing ? (
          <Row title="Knows its data">
            {quality(Math.round(10_000 * contribution.standing.owned))}{' '}
            <span className="muted small">
              of its rounds so far ({contribution.standing.rounds}, the recent ones count more) it gained more
              on the data assigned to it than on other data
            </span>
          </Row>
        ) : null}
        <Row title="Amount">
          {payment.amount === null ? 'not known yet' : <Amount base={payment.amount} />}
        </Row>
      </dl>
      {judging ? (
        <Judged judging={judging} payment={payment} />
      ) : settlement.error && !unknown ? (
        <ErrorNotice error={settlement.error} title="The attestations cannot be read." />
      ) : (
        <p className="small muted">
          Attestors first commit to their scores, then sign the list of commitments, and only then show them.
          Who scored what appears here when they have.
        </p>
      )}
    </div>
  );
}

function Row({ title, children }: { title: string; children: ReactNode }) {
  return (
    <>
      <dt>{title}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Judged({ judging, payment }: { judging: Judging; payment: Payment }) {
  const { chain, contracts } = useNetwork();
  const { data: set } = useReadContract({
    address: contracts.market,
    abi: computeMarketAbi,
    chainId: chain.id,
    functionName: 'getEpoch',
    args: [judging.epoch],
    query: { staleTime: Number.POSITIVE_INFINITY },
  });
  const [members = [], quorum] = set ?? [];
  const size = Math.max(members.length, ...judging.parts.map(({ member }) => member + 1));
  const rows = Array.from({ length: size }, (_, member) => ({
    member,
    address: members[member],
    part: judging.parts.find((part) => part.member === member),
  }));
  const amount = reward(BigInt(payment.units), BigInt(payment.rate), BigInt(judging.median));
  const agrees = payment.quality === judging.median && payment.amount === String(amount);
  return (
    <>
      <DataTable
        caption={`Attestors of epoch ${judging.epoch}`}
        columns={[
          {
            key: 'attestor',
            label: 'Attestor',
            lead: true,
            cell: ({ member, address }) => (address ? <Address value={address} /> : `number ${member}`),
          },
          { key: 'state', label: 'State', cell: ({ part }) => stateOf(part) },
          {
            key: 'score',
            label: 'Score',
            number: true,
            cell: ({ part }) => (part?.score == null ? '–' : quality(part.score)),
          },
        ]}
        rows={rows}
        id={({ member }) => member}
        rowProps={() => ({ 'data-testid': 'attestor-row' })}
      />
      <p className="small" data-testid="judging" data-agrees={agrees}>
        Median of what was shown{quorum ? `, at least ${quorum} of ${members.length}` : ''}:{' '}
        <strong>{quality(judging.median)}</strong>. {count(payment.units)} × {payment.rate} ×{' '}
        {count(judging.median)} ÷ {count(10_000)} = <Amount base={amount} />{' '}
        {agrees ? '= what was paid ✓' : '≠ what was paid'}{' '}
        <span className="muted">recomputed by your browser</span>
      </p>
    </>
  );
}

function stateOf(part: Judging['parts'][number] | undefined): string {
  if (!part) return 'no commitment';
  return part.score === null ? 'committed, never shown' : 'committed, signed, shown';
}
