import type { CSSProperties } from 'react';
import type { Job } from '@/api/types';
import { Panel } from '@/components/basics';
import type { Entities } from '@/realtime/entities';
import { listOf } from '@/realtime/topics';
import { currentPhase, isFinal, type Phase, phasesOf } from './phases';

type Row = { number: number; phases: Phase[] };

/** Rounds in flight, newest first: the next one trains while the last ones settle. */
export function pipelineRows(entities: Entities): Row[] {
  const rounds = listOf(entities.rounds, (round) => round.number);
  const rows = rounds.slice(0, 6).map((round) => {
    const ofRound = <T extends { round: number }>(all: ReadonlyMap<number, T>) =>
      [...all.values()].filter((row) => row.round === round.number);
    return {
      number: round.number,
      phases: phasesOf({
        round,
        assignments: ofRound(entities.assignments),
        contributions: ofRound(entities.contributions),
        payments: ofRound(entities.payments),
      }),
    };
  });
  const flying = rows.filter((row, index) => index === 0 || !isFinal(row.phases));
  return flying.slice(0, 3);
}

export function Pipeline({ job, entities }: { job: Job; entities: Entities }) {
  const rows = pipelineRows(entities);
  const newest = rows[0];
  if (!newest) return null;
  const current = currentPhase(newest.phases);
  return (
    <Panel
      title={job.state === 'running' || job.state === 'funded' ? 'Rounds in flight' : 'Last rounds'}
      aside={<span className="muted small">Rounds count from 0, as on chain</span>}
    >
      <div className="pipeline">
        {rows.map((row) => (
          <div key={row.number} className="pipeline-row" data-testid="pipeline-row">
            <h3 className="num">Round {row.number}</h3>
            <ol className="phases">
              {row.phases.map((phase) => (
                <li
                  key={phase.name}
                  className="phase"
                  data-state={phase.state}
                  style={{ '--done': `${phase.percent}%` } as CSSProperties}
                >
                  <b>
                    {phase.name}
                    {phase.state === 'done' ? <span className="visually-hidden"> done</span> : null}
                  </b>
                  <span>{phase.detail || ' '}</span>
                </li>
              ))}
            </ol>
          </div>
        ))}
      </div>
      <p className="visually-hidden" role="status">
        {job.state === 'running' ? `Round ${newest.number}: ${current?.name}` : `Job ${job.state}`}
      </p>
    </Panel>
  );
}
