import type { Assignment, Round } from '@/api/types';
import { Empty, Panel } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { Phases, PredictionError, Share, Why } from '@/components/Parts';
import { NodeDot, nodeName } from '@/components/states';
import { duration } from '@/lib/format';
import type { Entities } from '@/realtime/entities';
import { listOf } from '@/realtime/topics';

/** How a round was decided: who was given what, when it closes, and why; predicted beside measured. */
export function RoundPlan({ entities, round }: { entities: Entities; round: number | null }) {
  const planned = listOf(entities.rounds, (row) => row.number).filter((row) => row.plan !== null);
  const shown = planned.find((row) => row.number === round) ?? planned[0];
  if (!shown?.plan) return null;
  const parts = [...entities.assignments.values()].filter((row) => row.round === shown.number);
  return (
    <Panel
      title={`How round ${shown.number} was planned`}
      aside={<Close round={shown} plan={shown.plan} />}
      flush
    >
      {parts.length === 0 ? (
        <Empty title="Nobody has a part in it" />
      ) : (
        <DataTable
          caption={`Parts of round ${shown.number}`}
          columns={[
            {
              key: 'node',
              label: 'Node',
              lead: true,
              cell: (row) => <Who id={row.node_id} entities={entities} />,
            },
            { key: 'part', label: 'Part', cell: (row) => <Share {...row} /> },
            {
              key: 'predicted',
              label: 'Predicted',
              wide: true,
              cell: (row) => (
                <Phases
                  seconds={row.predicted}
                  source="predicted from what was measured of the node and its link"
                />
              ),
            },
            {
              key: 'took',
              label: 'Took',
              wide: true,
              cell: (row) => (
                <Phases
                  seconds={row.actual}
                  source="by the coordinator's clock; seconds of computing are the node's word within it"
                />
              ),
            },
            { key: 'error', label: 'Off by', number: true, cell: (row) => <PredictionError {...row} /> },
            { key: 'why', label: 'Why', wide: true, cell: (row) => <Why reasons={row.reasons} /> },
          ]}
          rows={parts}
          id={(row: Assignment) => row.id}
          rowProps={(row) => ({ 'data-testid': 'part', 'data-node-id': row.node_id })}
        />
      )}
      <div className="panel-body stack tight">
        <Why reasons={shown.plan.reasons} label="Why the round closes then" />
        {shown.plan.seating.length ? (
          <details data-testid="seating">
            <summary className="small">Why these nodes and not others</summary>
            <ul className="small">
              {shown.plan.seating.map((row) => (
                <li key={row.node_id} data-code={row.code}>
                  <Who id={row.node_id} entities={entities} /> {row.taken ? 'has a place' : 'was passed over'}
                  : {row.text}
                </li>
              ))}
            </ul>
          </details>
        ) : null}
        {shown.plan.excluded.map((out) => (
          <p key={out.node_id} className="small" data-testid="excluded">
            <Who id={out.node_id} entities={entities} /> has no part: {out.text}
          </p>
        ))}
      </div>
    </Panel>
  );
}

function Close({ round, plan }: { round: Round; plan: NonNullable<Round['plan']> }) {
  return (
    <span className="muted small" data-testid="round-close">
      {plan.steps} of at most {plan.most_steps} steps
      {plan.predicted_seconds !== null && ` · done in about ${duration(plan.predicted_seconds)}`} · closes
      after {duration(plan.deadline_seconds)} with {plan.quorum} of {round.expected}
    </span>
  );
}

function Who({ id, entities }: { id: number; entities: Entities }) {
  return (
    <span className="address">
      <NodeDot id={id} />
      {nodeName(entities.nodes.get(id), id)}
    </span>
  );
}
