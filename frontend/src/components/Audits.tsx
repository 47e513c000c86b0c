/** Replay audits: segments of contributions that chance has chosen to be computed again. */

import { Link } from 'react-router';
import type { Audit, AuditState, Case, CaseState, Node } from '@/api/types';
import { bytes, quality } from '@/lib/format';
import { Age, Amount, Chip, Empty, Panel, type Tone } from './basics';
import { DataTable } from './DataTable';
import { NodeDot, nodeName } from './states';

const STATES: Record<AuditState, { label: string; tone: Tone; meaning: string }> = {
  requested: { label: 'asked', tone: 'plain', meaning: 'The node is to hand in the states of the segment.' },
  answered: {
    label: 'replaying',
    tone: 'info',
    meaning: 'The node has answered; the segment is computed again.',
  },
  passed: { label: 'passed', tone: 'ok', meaning: 'Computed again, it gave the same within the tolerance.' },
  suspicious: {
    label: 'suspicious',
    tone: 'warn',
    meaning: 'It differs, but not so far that it must be a cheat.',
  },
  failed: { label: 'failed', tone: 'bad', meaning: 'Computed again, it gave something else.' },
  unanswered: { label: 'unanswered', tone: 'warn', meaning: 'The node did not answer in time.' },
};

export function AuditStateChip({ state }: { state: AuditState }) {
  const told = STATES[state] ?? { label: state, tone: 'plain', meaning: state };
  return (
    <Chip tone={told.tone} title={told.meaning} hollow={state === 'requested'}>
      {told.label}
    </Chip>
  );
}

type Props = { audits: readonly Audit[]; nodes: ReadonlyMap<number, Node>; ofManyJobs?: boolean };

export function Audits({ audits, nodes, ofManyJobs }: Props) {
  const rows = [...audits].sort((a, b) => b.id - a.id);
  const round = ({ job_id, round }: Audit) => (
    <Link to={`/jobs/${job_id}?round=${round}`}>{ofManyJobs ? `job ${job_id}, round ${round}` : round}</Link>
  );
  return (
    <Panel
      title="Replay audits"
      aside={<span className="muted small">drawn by a block after the settlement</span>}
      flush
    >
      {rows.length === 0 ? (
        <Empty title="No audit yet">
          Chance chooses some of the paid contributions; a part of them is then computed again elsewhere.
        </Empty>
      ) : (
        <DataTable
          caption="Replay audits, newest first"
          columns={[
            { key: 'round', label: 'Round', lead: true, cell: round },
            {
              key: 'node',
              label: 'Node',
              cell: ({ node_id }) => (
                <span className="address">
                  <NodeDot id={node_id} />
                  {nodeName(nodes.get(node_id), node_id)}
                </span>
              ),
            },
            { key: 'segment', label: 'Segment', number: true, cell: ({ segment }) => segment },
            { key: 'state', label: 'Verdict', cell: (audit) => <Verdict audit={audit} /> },
            { key: 'error', label: 'Differs by', number: true, cell: (audit) => <Differs audit={audit} /> },
            {
              key: 'class',
              label: 'Machines',
              cell: ({ precision, operator_class, auditor_class }) => (
                <span className="small">
                  {operator_class || 'not reported'}
                  {auditor_class ? ` against ${auditor_class}` : ''}, {precision}
                </span>
              ),
            },
            {
              key: 'bytes',
              label: 'Shown',
              number: true,
              cell: ({ evidence_bytes }) => (evidence_bytes === null ? '–' : bytes(evidence_bytes)),
            },
            {
              key: 'block',
              label: 'Drawn by',
              cell: ({ block, block_hash }) => (
                <span className="num" title={block_hash}>
                  block {block}
                </span>
              ),
            },
            { key: 'at', label: 'Asked', cell: ({ requested_at }) => <Age at={requested_at} /> },
          ]}
          rows={rows}
          id={(audit) => audit.id}
          limit={10}
          rowProps={({ state }) => ({ 'data-testid': 'audit-row', 'data-state': state })}
        />
      )}
    </Panel>
  );
}

function Verdict({ audit: { state, shadow, reason, case: dispute } }: { audit: Audit }) {
  const judged = ['passed', 'suspicious', 'failed', 'unanswered'].includes(state);
  return (
    <span className="stack tight" title={reason ?? undefined}>
      <span>
        <AuditStateChip state={state} />
        {judged && shadow && state !== 'passed' ? (
          <span
            className="muted small"
            title="Too few honest audits of these machines are known: nothing follows."
          >
            {' '}
            shadow
          </span>
        ) : null}
      </span>
      {state === 'passed' || !reason ? null : <span className="muted small">{reason}</span>}
      {dispute ? <AtCourt of={dispute} /> : null}
    </span>
  );
}

const CASES: Record<CaseState, { label: string; tone: Tone; meaning: string }> = {
  promised: { label: 'being opened', tone: 'plain', meaning: 'A challenger posts a bond at the court.' },
  refused: { label: 'not heard', tone: 'warn', meaning: 'The court did not take the case.' },
  drawing: {
    label: 'drawing',
    tone: 'info',
    meaning: 'A block draws a committee of attestors that did not sign.',
  },
  voting: {
    label: 'voting',
    tone: 'info',
    meaning: 'Each member computes the segment again, commits, and reveals.',
  },
  decided: { label: 'decided', tone: 'info', meaning: 'The committee has spoken; a party may still appeal.' },
  appealed: { label: 'appealed', tone: 'warn', meaning: 'The arbiter has the word.' },
  executed: { label: 'over', tone: 'plain', meaning: 'The case is executed.' },
};

/** What became of a failed audit at the court. */
function AtCourt({ of }: { of: Case }) {
  const told = CASES[of.state] ?? { label: of.state, tone: 'plain', meaning: of.state };
  const tone = of.state === 'executed' && of.upheld ? 'bad' : told.tone;
  return (
    <span className="small" data-testid="case" data-state={of.state}>
      <Chip tone={tone} title={told.meaning}>
        {of.chain_id === null ? 'case' : `case ${of.chain_id}`} {told.label}
      </Chip>{' '}
      <span className="muted">
        <Outcome of={of} />
      </span>
    </span>
  );
}

function Outcome({
  of: { state, reason, members, committed, revealed, finding, upheld, taken },
}: {
  of: Case;
}) {
  if (state === 'voting') return `${committed} of ${members} committed, ${revealed} revealed`;
  if (state === 'executed' && upheld)
    return (
      <>
        <Amount base={taken} /> taken from the node
      </>
    );
  if (state === 'executed') return finding === null ? 'nobody found anything' : 'what was paid stands';
  if (finding !== null) return `found to be worth ${quality(finding)}`;
  return reason ?? '';
}

function Differs({ audit: { error, tolerance } }: { audit: Audit }) {
  if (error === null) return '–';
  const title = tolerance === null ? undefined : `up to ${percent(tolerance)} is tolerated (relative L2)`;
  return <span title={title}>{percent(error)}</span>;
}

function percent(part: number): string {
  return `${(100 * part).toPrecision(2)}\u00a0%`;
}
