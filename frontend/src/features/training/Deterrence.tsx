import { useQuery } from '@tanstack/react-query';
import { fetchDeterrence } from '@/api/endpoints';
import type { Audit, Deterrence as Figures, Job, Node } from '@/api/types';
import { Amount, Chip, Panel } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { NodeDot, nodeName } from '@/components/states';
import { bytes, count, plural } from '@/lib/format';
import type { Entities } from '@/realtime/entities';
import { part, verdictsOf } from './deterrence';

/** The arithmetic that is to keep operators honest, and how far it does. */
export function Deterrence({ job, entities }: { job: Job; entities: Entities }) {
  const audits = [...entities.audits.values()];
  const judged = audits.filter((audit) => audit.judged_at !== null).length;
  const { data } = useQuery({
    queryKey: ['deterrence', job.id, job.round, judged],
    queryFn: () => fetchDeterrence(job.id),
    placeholderData: (before) => before,
  });
  if (!data) return null;
  return (
    <section data-testid="deterrence">
      <Panel title="Does cheating pay?" aside={<Mode figures={data} />}>
        <div className="stack">
          <Chances figures={data} audits={audits} />
          <AtStake figures={data} nodes={entities.nodes} />
          <Classes figures={data} />
        </div>
      </Panel>
    </section>
  );
}

function Mode({ figures: { classes } }: { figures: Figures }) {
  const live = classes.length > 0 && classes.every((one) => one.calibrated);
  return live ? (
    <Chip
      tone="ok"
      title="A failed audit leaves the node out of rounds for a day, and is brought to the court where it is proven."
    >
      audits count
    </Chip>
  ) : (
    <Chip
      tone="warn"
      title="Audits are recorded and shown. Nothing follows from them before enough honest ones are known."
    >
      shadow mode
    </Chip>
  );
}

function Chances({ figures, audits }: { figures: Figures; audits: readonly Audit[] }) {
  return (
    <dl className="kv wide">
      <dt>A contribution is audited</dt>
      <dd>
        with a chance of <b>{part(figures.rate)}</b>, {part(figures.newcomer_rate)} in the first{' '}
        {plural(figures.newcomer_rounds, 'round')} of a node
      </dd>
      <dt>Then computed again</dt>
      <dd>
        {figures.segments} of its {plural(figures.segments_of_round, 'segment')} of{' '}
        {plural(figures.stride, 'step')}, drawn by a block that nobody knew when it was handed in
      </dd>
      <dt>A cheated round is found</dt>
      <dd>
        with a chance of <b>{part(figures.caught_idle)}</b> if nothing was trained,{' '}
        {part(figures.caught_lazy)} if a tenth was left out
      </dd>
      <dt>A new node that cheats keeps</dt>
      <dd data-testid="cheat-keeps">
        <b>{part(figures.left_idle)}</b> of its pay for the first {plural(figures.newcomer_rounds, 'round')}{' '}
        if nothing was trained, {part(figures.left_lazy)} if a tenth was left out: never found in any of them.
        Who is found once is audited in all of them
      </dd>
      <dt>What that costs</dt>
      <dd data-testid="audit-costs">
        auditors compute {part(figures.auditing_newcomers)} of a new node's work again, later{' '}
        {part(figures.auditing)}
        {figures.shown_bytes === null
          ? ''
          : `; the node sends up to ${bytes(figures.shown_bytes)} of its states for an audited contribution`}
      </dd>
      <dt>A case at the court then takes</dt>
      <dd data-testid="case-takes">
        the pay of that round and as much again: enough to deter where <b>{part(figures.deterring_rate)}</b>{' '}
        of the contributions are audited. The node's other rounds that can still be disputed are audited then,
        too. Who does not answer is left out, and loses no pay.
      </dd>
      <dt>So far</dt>
      <dd data-testid="audit-verdicts">{verdictsOf(audits)}</dd>
    </dl>
  );
}

function AtStake({ figures, nodes }: { figures: Figures; nodes: ReadonlyMap<number, Node> }) {
  const { cost, missed, safety } = figures.assumed;
  if (figures.nodes.length === 0) return null;
  return (
    <DataTable
      caption="What each node would lose, and what it must lose to be deterred"
      columns={[
        {
          key: 'node',
          label: 'Node',
          lead: true,
          cell: ({ node_id }) => (
            <span className="address">
              <NodeDot id={node_id} />
              {nodeName(nodes.get(node_id), node_id)}
            </span>
          ),
        },
        { key: 'pay', label: 'Pay of a round', number: true, cell: ({ pay }) => <Amount base={pay} /> },
        {
          key: 'needed',
          label: 'Must lose',
          number: true,
          cell: ({ needed }) => (needed === null ? 'no audits' : <Amount base={needed} />),
        },
        {
          key: 'taken',
          label: 'Would lose',
          number: true,
          cell: ({ at_stake }) => <Amount base={at_stake} />,
        },
        { key: 'stake', label: 'Stake', number: true, cell: ({ stake }) => <Amount base={stake} /> },
        {
          key: 'withheld',
          label: 'Pay not withdrawn',
          number: true,
          cell: ({ withheld }) => <Amount base={withheld} />,
        },
        {
          key: 'enough',
          label: 'Enough',
          cell: ({ enough }) => <Chip tone={enough ? 'ok' : 'warn'}>{enough ? 'yes' : 'no'}</Chip>,
        },
      ]}
      rows={figures.nodes}
      id={({ node_id }) => node_id}
      limit={8}
      rowProps={({ enough }) => ({ 'data-testid': 'at-stake-row', 'data-enough': enough })}
      foot={`Must lose: ${safety} × ${part(cost)} of a round's pay ÷ (${part(figures.rate)} × ${part(1 - missed)}). Assumed: work costs ${part(cost)} of its pay, ${part(missed)} of replays miss, ${safety} times over to be safe. Would lose: ${figures.case_takes} × the pay of the round, from its pay that is not withdrawn, then from its operator's stake; what more there is stays.`}
    />
  );
}

/** The false alarms of the classes that this job's audits were judged in, over all jobs. */
function Classes({ figures: { classes, honest_audits_needed } }: { figures: Figures }) {
  if (classes.length === 0)
    return (
      <p className="small muted">
        Machines of different kinds differ in the last digits. Before a kind has {honest_audits_needed} honest
        audits its verdicts are recorded and shown, and hurt nobody.
      </p>
    );
  return (
    <DataTable
      caption="False alarms by kind of machines"
      columns={[
        {
          key: 'class',
          label: 'Machines',
          lead: true,
          cell: ({ precision, operator_class, auditor_class }) =>
            `${operator_class || 'not reported'} against ${auditor_class}, ${precision}`,
        },
        { key: 'n', label: 'Honest audits', number: true, cell: ({ honest }) => count(honest) },
        {
          key: 'alarms',
          label: 'False alarms',
          number: true,
          cell: ({ false_alarms }) => count(false_alarms),
        },
        {
          key: 'rate',
          label: 'Rate at most',
          number: true,
          cell: ({ honest, highest_rate }) =>
            honest === 0 ? '–' : <span title="95 % confidence (Clopper-Pearson)">{part(highest_rate)}</span>,
        },
        {
          key: 'mode',
          label: 'Verdicts',
          cell: ({ calibrated, honest }) =>
            calibrated ? (
              <Chip tone="ok">count</Chip>
            ) : (
              <Chip tone="warn">
                shadow, {count(honest)} of {honest_audits_needed}
              </Chip>
            ),
        },
      ]}
      rows={classes}
      id={(one) => `${one.precision} ${one.operator_class} ${one.auditor_class}`}
      rowProps={({ calibrated }) => ({ 'data-testid': 'audit-class-row', 'data-calibrated': calibrated })}
      foot="Honest: of nodes that passed most of their audits, over all jobs."
    />
  );
}
