/** Curves of a job from its rows. x counts rounds: a node's step s of S in round r stands at r + s / S. */

import type { Assignment, Job, Round } from '@/api/types';
import type { Line } from '@/components/LineChart';
import { seriesColor } from '@/components/states';
import { minMaxBuckets } from '@/lib/buckets';

/** About two points for each pixel of a wide screen, over all lines. */
const MOST_POINTS = 4_000;

/** Steps keep clear of the round's borders, where each node's line breaks. */
const place = (round: number, share: number) => round + 0.01 + 0.97 * share;

export type Curves = { lines: Line[]; points: number; hidden: number };

/** Training losses of each node, faint, and the evaluation loss after each round, bold. */
export function lossCurves(
  job: Job,
  rounds: readonly Round[],
  assignments: readonly Assignment[],
  names: Map<number, string>,
): Curves {
  const nodes = [...new Set(assignments.map((assignment) => assignment.node_id))].sort((a, b) => a - b);
  const lines: Line[] = [];
  let points = 0;
  let hidden = 0;
  for (const node of nodes) {
    const own = assignments.filter(
      (assignment) => assignment.node_id === node && assignment.losses.length > 0,
    );
    const total = own.reduce((sum, assignment) => sum + assignment.losses.length, 0);
    const line = nodeLine(own, MOST_POINTS / nodes.length, total);
    points += total;
    hidden += total - line.x.length + own.length;
    if (total > 0)
      lines.push({ label: names.get(node) ?? `node ${node}`, color: seriesColor(node), points: line });
  }
  const evaluation = evaluationLine(job, rounds, 'loss');
  if (evaluation.x.length > 0)
    lines.push({ label: 'evaluation', color: '--text', points: evaluation, bold: true });
  return {
    lines: withTarget(lines, job, 'loss'),
    points: points + evaluation.x.length,
    hidden: Math.max(0, hidden),
  };
}

export function accuracyCurve(job: Job, rounds: readonly Round[]): Curves {
  const points = evaluationLine(job, rounds, 'accuracy');
  const line: Line = { label: 'evaluation', color: '--accent', points, bold: true };
  return {
    lines: withTarget(points.x.length ? [line] : [], job, 'accuracy'),
    points: points.x.length,
    hidden: 0,
  };
}

function nodeLine(
  own: readonly Assignment[],
  most: number,
  total: number,
): { x: number[]; y: (number | null)[] } {
  const line: { x: number[]; y: (number | null)[] } = { x: [], y: [] };
  for (const { round, steps, losses } of [...own].sort((a, b) => a.round - b.round)) {
    line.x.push(round);
    line.y.push(null);
    const raw = {
      x: losses.map(([step]) => place(round, step / Math.max(1, steps))),
      y: losses.map(([, value]) => value),
    };
    const kept =
      total > most ? minMaxBuckets(raw, Math.max(1, Math.floor((losses.length * most) / total / 2))) : raw;
    line.x.push(...kept.x);
    line.y.push(...kept.y);
  }
  return line;
}

function evaluationLine(
  job: Job,
  rounds: readonly Round[],
  name: 'loss' | 'accuracy',
): { x: number[]; y: number[] } {
  const points: [number, number][] = [];
  const start = job.start_metric?.[name];
  if (typeof start === 'number') points.push([0, start]);
  for (const round of rounds) {
    const value = round.metric?.[name];
    if (typeof value === 'number') points.push([round.number + 1, value]);
  }
  points.sort((a, b) => a[0] - b[0]);
  return { x: points.map(([x]) => x), y: points.map(([, y]) => y) };
}

function withTarget(lines: Line[], job: Job, name: 'loss' | 'accuracy'): Line[] {
  if (job.target.metric !== name || lines.length === 0) return lines;
  const { value } = job.target;
  return [
    ...lines,
    { label: 'target', color: '--ok-fill', dashed: true, points: { x: [0, job.rounds], y: [value, value] } },
  ];
}
