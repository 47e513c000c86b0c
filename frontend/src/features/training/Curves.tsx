import { lazy, Suspense, useMemo, useState } from 'react';
import type { Job } from '@/api/types';
import { Empty, Panel, Skeleton } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { nodeName } from '@/components/states';
import { accuracy, count, loss, plural } from '@/lib/format';
import type { Entities } from '@/realtime/entities';
import { listOf } from '@/realtime/topics';
import { accuracyCurve, type Curves as CurveSet, lossCurves } from './curves';

const LineChart = lazy(() =>
  import('@/components/LineChart').then((module) => ({ default: module.LineChart })),
);

/** Runs of few rounds are shown whole from the start, so that the curve grows into its frame. */
const WHOLE_RUN = 60;

type Props = {
  job: Job;
  entities: Entities;
  round: number | null;
  pickRound: (round: number | null) => void;
};

export function Curves({ job, entities, round, pickRound }: Props) {
  const rounds = useMemo(() => listOf(entities.rounds, (row) => -row.number), [entities.rounds]);
  const losses = useMemo(() => {
    const names = new Map([...entities.nodes.values()].map((node) => [node.id, nodeName(node)]));
    return lossCurves(job, rounds, [...entities.assignments.values()], names);
  }, [job, rounds, entities.assignments, entities.nodes]);
  const accuracies = useMemo(() => accuracyCurve(job, rounds), [job, rounds]);
  const shared = {
    xLabel: 'round',
    formatX: (x: number) => (Number.isInteger(x) ? String(x) : x.toFixed(2)),
    sync: `job.${job.id}`,
    highlight: round === null ? null : { from: round, to: round + 1 },
    onPick: (x: number) => pickRound(Math.floor(x) === round ? null : Math.floor(x)),
    xRange: job.rounds <= WHOLE_RUN ? ([0, job.rounds] as [number, number]) : undefined,
  };
  const hasAccuracy = accuracies.points > 0;
  return (
    <div className={hasAccuracy ? 'charts' : undefined}>
      <Panel title="Loss" aside={<Legend curves={losses} />}>
        <div data-testid="loss-points" data-count={losses.points}>
          {losses.points === 0 ? (
            <Empty title="No loss yet">{waiting(job)}</Empty>
          ) : (
            <Suspense fallback={<Skeleton height={300} />}>
              <LineChart
                {...shared}
                name="Loss over rounds: training losses of each node and evaluation loss"
                summary={summary('Evaluation loss', losses, loss)}
                lines={losses.lines}
                height={300}
                formatY={loss}
                formatTick={(value, step) =>
                  value.toFixed(step >= 1 ? 0 : step >= 0.1 ? 1 : step >= 0.01 ? 2 : 4)
                }
              />
            </Suspense>
          )}
        </div>
        <Points curves={losses} format={loss} name="Loss" />
      </Panel>
      {hasAccuracy ? (
        <Panel title="Accuracy" aside={<span className="muted small">held-out data</span>}>
          <Suspense fallback={<Skeleton height={300} />}>
            <LineChart
              {...shared}
              name="Accuracy on held-out data over rounds"
              summary={summary('Accuracy', accuracies, accuracy)}
              lines={accuracies.lines}
              height={300}
              formatY={accuracy}
              formatTick={(value, step) => `${(value * 100).toFixed(step < 0.01 ? 1 : 0)} %`}
            />
          </Suspense>
          <Points curves={accuracies} format={accuracy} name="Accuracy" />
        </Panel>
      ) : null}
    </div>
  );
}

function waiting(job: Job): string {
  if (job.state === 'draft') return 'The first loss appears seconds after the escrow is final.';
  return 'Nodes are being seated; the first training step follows in a few seconds.';
}

function Legend({ curves }: { curves: CurveSet }) {
  return (
    <div className="legend">
      {curves.lines.map((line) => (
        <span key={line.label}>
          <i
            className={line.bold ? 'bold' : line.dashed ? 'dashed' : undefined}
            style={{ borderTopColor: `var(${line.color})` }}
          />
          {line.label}
        </span>
      ))}
    </div>
  );
}

function evaluated(curves: CurveSet): { x: number; y: number }[] {
  const line = curves.lines.find((candidate) => candidate.bold);
  return (line?.points.x ?? []).map((x, index) => ({ x, y: line?.points.y[index] as number }));
}

function summary(what: string, curves: CurveSet, format: (value: number) => string): string {
  const points = evaluated(curves);
  const first = points[0];
  const last = points.at(-1);
  if (!first || !last) return `${what} has no points yet. ${plural(curves.points, 'training point')} drawn.`;
  return `${what} went from ${format(first.y)} to ${format(last.y)} over ${plural(last.x, 'round')}.`;
}

/** The same facts as a table, for those who cannot or do not want to read a curve. */
function Points({
  curves,
  format,
  name,
}: {
  curves: CurveSet;
  format: (value: number) => string;
  name: string;
}) {
  const [open, setOpen] = useState(false);
  const rows = evaluated(curves).reverse();
  if (rows.length === 0) return null;
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        View as table
        {curves.hidden > 0
          ? ` · ${count(curves.hidden)} points lie between those drawn (lowest and highest are kept)`
          : ''}
      </summary>
      {open ? (
        <DataTable
          caption={`${name} after each round`}
          columns={[
            { key: 'rounds', label: 'Rounds done', cell: (row) => row.x, lead: true },
            { key: 'value', label: name, cell: (row) => format(row.y), number: true },
          ]}
          rows={rows}
          id={(row) => row.x}
          limit={12}
        />
      ) : null}
    </details>
  );
}
