import { useState } from 'react';
import type { Job, Node } from '@/api/types';
import { Age, Amount, Empty, Panel, Pay } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { Dialog } from '@/components/Dialog';
import { ContributionStateChip, NodeDot, nodeName, PaymentStateChip } from '@/components/states';
import { TransactionHash } from '@/components/TransactionPanel';
import { count, duration, plural, quality } from '@/lib/format';
import type { Entities } from '@/realtime/entities';
import { type Line, ledgerOf, median, reconcile, rejectedOf, settleSeconds } from './ledger';
import { PaymentDetail } from './PaymentDetail';

type Props = {
  job: Job;
  entities: Entities;
  round: number | null;
  pickRound: (round: number | null) => void;
};

/** Every contribution with its payment; choosing a line lights up its round on the curves. */
export function Ledger({ job, entities, round, pickRound }: Props) {
  const lines = ledgerOf(entities);
  const rejected = rejectedOf(entities).length;
  const [shown, setShown] = useState<number | null>(null);
  const chosen = lines.find((line) => line.contribution.id === shown);
  const columns = [
    {
      key: 'round',
      label: 'Round',
      lead: true,
      cell: (line: Line) => <RoundButton line={line} chosen={round} pick={pickRound} />,
    },
    {
      key: 'node',
      label: 'Node',
      cell: (line: Line) => <NodeLabel id={line.contribution.node_id} nodes={entities.nodes} />,
    },
    { key: 'samples', label: 'Samples', number: true, cell: (line: Line) => count(line.contribution.units) },
    {
      key: 'quality',
      label: 'Quality',
      number: true,
      cell: (line: Line) => <Quality line={line} show={() => setShown(line.contribution.id)} />,
    },
    {
      key: 'amount',
      label: 'Amount',
      number: true,
      cell: ({ payment }: Line) => (payment ? <Pay payment={payment} /> : '–'),
    },
    { key: 'state', label: 'State', cell: (line: Line) => <StateOf line={line} /> },
    {
      key: 'tx',
      label: 'Transaction',
      cell: (line: Line) => <Sent line={line} />,
    },
    {
      key: 'seconds',
      label: 'Hand-in to final',
      number: true,
      cell: ({ payment }: Line) => <Settled line={payment} />,
    },
  ];
  return (
    <Panel
      title="Contributions and payments"
      aside={rejected ? <a href="#rejected">{plural(rejected, 'rejected contribution')}</a> : undefined}
      flush
    >
      {lines.length === 0 ? (
        <Empty title="Nothing handed in yet">
          Each accepted contribution is paid units × rate × quality. The first ones come at the end of round
          0.
        </Empty>
      ) : (
        <DataTable
          caption="Contributions with their payments, newest first. Choose one to light up its round on the curves."
          columns={columns}
          rows={lines}
          id={(line) => line.contribution.id}
          limit={20}
          rowProps={({ contribution, payment }) => ({
            'data-testid': 'payment-row',
            'data-state': payment?.state ?? contribution.state,
            className: contribution.round === round ? 'selectable selected' : 'selectable',
            onClick: () => pickRound(contribution.round === round ? null : contribution.round),
          })}
          foot={<Sums job={job} entities={entities} />}
        />
      )}
      <Dialog
        open={chosen?.payment != null}
        title={chosen ? `Round ${chosen.contribution.round}, node ${chosen.contribution.node_id}` : ''}
        close={() => setShown(null)}
      >
        {chosen?.payment ? (
          <PaymentDetail job={job} contribution={chosen.contribution} payment={chosen.payment} />
        ) : null}
      </Dialog>
    </Panel>
  );
}

function RoundButton({
  line,
  chosen,
  pick,
}: {
  line: Line;
  chosen: number | null;
  pick: (round: number | null) => void;
}) {
  const { round } = line.contribution;
  const toggle = (event: React.MouseEvent) => {
    event.stopPropagation();
    pick(round === chosen ? null : round);
  };
  return (
    <button
      type="button"
      className="link num"
      aria-pressed={round === chosen}
      aria-label={`Show round ${round} on the curves`}
      onClick={toggle}
    >
      {round}
    </button>
  );
}

export function NodeLabel({ id, nodes }: { id: number; nodes: ReadonlyMap<number, Node> }) {
  return (
    <span className="address">
      <NodeDot id={id} />
      {nodeName(nodes.get(id), id)}
    </span>
  );
}

/** The quality, and with it the way to who found it. */
function Quality({ line: { contribution, payment }, show }: { line: Line; show: () => void }) {
  if (!payment) return '–';
  return (
    <button
      type="button"
      className="link num"
      aria-label={`How node ${contribution.node_id} was judged in round ${contribution.round}`}
      onClick={(event) => {
        event.stopPropagation();
        show();
      }}
      data-testid="payment-detail-open"
    >
      {payment.quality === null ? 'being judged' : quality(payment.quality)}
    </button>
  );
}

/** The transaction that pays; before there is one, the one that recorded the receipt as it arrived. */
function Sent({ line: { contribution, payment } }: { line: Line }) {
  if (payment?.tx_hash) return <TransactionHash hash={payment.tx_hash} />;
  if (!contribution.recorded_tx) return '–';
  return (
    <span title="The signed receipt is on chain; its payment follows with the round.">
      recorded <TransactionHash hash={contribution.recorded_tx} />
    </span>
  );
}

function StateOf({ line: { contribution, payment } }: { line: Line }) {
  if (!payment) return <ContributionStateChip state={contribution.state} />;
  return (
    <span title={payment.reason ?? undefined}>
      <PaymentStateChip state={payment.state} />
    </span>
  );
}

function Settled({ line }: { line: Line['payment'] }) {
  const seconds = line ? settleSeconds(line) : null;
  if (line && seconds !== null) return <span className="num">{duration(seconds)}</span>;
  return line ? <Age at={line.handed_in_at} prefix="handed in " /> : '–';
}

function Sums({ job, entities }: { job: Job; entities: Entities }) {
  const payments = [...entities.payments.values()];
  const { credited, spent, agrees } = reconcile(job, payments);
  const seconds = payments.flatMap((payment) => settleSeconds(payment) ?? []);
  const middle = median(seconds);
  return (
    <span className="row" data-testid="reconciliation" data-agrees={agrees}>
      <span>
        Final payments <Amount base={credited} /> {agrees ? '=' : '≠'} spent on chain <Amount base={spent} />{' '}
        {agrees ? '✓' : '(the newest round is still settling)'}
      </span>
      {middle === null ? null : (
        <span>
          hand-in to final: median {duration(middle)} of {plural(seconds.length, 'payment')}
        </span>
      )}
    </span>
  );
}

/** What was refused, by whom, and why: nothing disappears silently. */
export function Rejected({ entities }: { entities: Entities }) {
  const rows = rejectedOf(entities);
  if (rows.length === 0) return null;
  return (
    <section id="rejected">
      <Panel
        title="Rejected contributions"
        aside={<span className="muted small">not paid, not part of the model</span>}
        flush
      >
        <DataTable
          caption="Rejected contributions"
          columns={[
            {
              key: 'round',
              label: 'Round',
              lead: true,
              cell: (row) => <span className="num">{row.round}</span>,
            },
            {
              key: 'node',
              label: 'Node',
              cell: (row) => <NodeLabel id={row.node_id} nodes={entities.nodes} />,
            },
            { key: 'code', label: 'Code', cell: (row) => <code>{row.code}</code> },
            { key: 'reason', label: 'Reason', cell: (row) => row.reason },
            { key: 'received', label: 'Received', cell: (row) => <Age at={row.received_at} /> },
          ]}
          rows={rows}
          id={(row) => row.id}
          limit={10}
        />
      </Panel>
    </section>
  );
}
