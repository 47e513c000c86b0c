import { useEffect, useId, useRef, useState } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export type Line = {
  label: string;
  /** A CSS custom property, such as `--series-0`. */
  color: string;
  points: { x: number[]; y: (number | null)[] };
  bold?: boolean;
  dashed?: boolean;
};

type Props = {
  name: string;
  summary: string;
  lines: readonly Line[];
  height: number;
  xLabel: string;
  formatX: (x: number) => string;
  formatY: (y: number) => string;
  /** Ticks lie `step` apart. */
  formatTick: (y: number, step: number) => string;
  /** Charts with the same key share their crosshair. */
  sync?: string;
  /** A span of x to light up. */
  highlight?: { from: number; to: number } | null;
  onPick?: (x: number) => void;
  /** Keeps the axis still while a run fills it. */
  xRange?: [number, number];
};

/**
 * A canvas line chart that reads its colours from the page, follows its size, and can be read by keyboard: arrow keys
 * move the crosshair, Home and End go to the ends, Enter picks.
 */
export function LineChart(props: Props) {
  const { name, summary, lines, height, sync, highlight } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const [readout, setReadout] = useState('');
  const id = useId();
  const dark = useDark();
  const shape = lines.map((line) => `${line.label}${line.color}${line.bold}${line.dashed}`).join('|');

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new plot only when its series or the theme change
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const chart = new uPlot(options(element, latest, setReadout), tabulate(latest.current.lines), element);
    chart.over.setAttribute('aria-hidden', 'true');
    plot.current = chart;
    const observer = new ResizeObserver(() =>
      chart.setSize({ width: element.clientWidth, height: latest.current.height }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [shape, dark, height, sync]);

  useEffect(() => {
    plot.current?.setData(tabulate(lines));
  }, [lines]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the highlight is drawn by a hook that reads the latest props
  useEffect(() => {
    plot.current?.redraw(false);
  }, [highlight?.from, highlight?.to]);

  const onKeyDown = (event: React.KeyboardEvent) => {
    const chart = plot.current;
    const xs = chart?.data[0];
    if (!chart || !xs?.length) return;
    const at = chart.cursor.idx ?? xs.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: xs.length - 1 }[event.key];
    if (event.key === 'Enter') props.onPick?.(xs[at] as number);
    if (to === undefined) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(xs.length - 1, to));
    chart.setCursor({ left: chart.valToPos(xs[index] as number, 'x'), top: 10 });
  };

  return (
    <div className="stack tight">
      {/* biome-ignore lint/a11y/useSemanticElements: a group of a canvas and its readout has no element of its own */}
      <div
        ref={box}
        className="chart"
        role="group"
        aria-label={name}
        aria-describedby={id}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the crosshair is moved by arrow keys
        tabIndex={0}
        onKeyDown={onKeyDown}
        style={{ minHeight: height }}
      />
      <p id={id} className="visually-hidden">
        {summary}
      </p>
      <p className="chart-readout" aria-live="polite">
        {readout}
      </p>
    </div>
  );
}

function options(
  element: HTMLElement,
  latest: { current: Props },
  setReadout: (text: string) => void,
): uPlot.Options {
  const { lines, height, sync, xLabel } = latest.current;
  const css = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = {
    stroke: css('--muted'),
    grid: { stroke: css('--line'), width: 1 },
    ticks: { stroke: css('--line'), size: 4 },
  };
  // Whole pixels: uPlot scales them for dense screens by a pattern that knows no fractions.
  const font = '12px system-ui, sans-serif';
  return {
    width: Math.max(200, element.clientWidth),
    height,
    padding: [10, 12, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: false, y: false },
      sync: sync ? { key: sync } : undefined,
      points: { size: 7 },
    },
    scales: {
      x: { time: false, range: (_, min, max) => latest.current.xRange ?? [min, max === min ? min + 1 : max] },
      y: { range: (_, min, max) => padded(min, max) },
    },
    axes: [
      {
        ...axis,
        font,
        size: 28,
        label: xLabel,
        labelFont: font,
        labelSize: 20,
        labelGap: 0,
        space: 46,
        incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000],
        values: (_, ticks) => ticks.map((x) => latest.current.formatX(x)),
      },
      {
        ...axis,
        font,
        size: 50,
        values: (_, ticks, __, ___, step) => ticks.map((y) => latest.current.formatTick(y, step)),
      },
    ],
    series: [
      {},
      ...lines.map(
        (line): uPlot.Series => ({
          label: line.label,
          stroke: css(line.color),
          alpha: line.bold || line.dashed ? 1 : 0.6,
          width: line.bold ? 2.2 : 1.3,
          dash: line.dashed ? [5, 4] : undefined,
          points: line.bold ? { show: true, size: 6, fill: css(line.color) } : { show: false },
        }),
      ),
    ],
    hooks: {
      drawClear: [(chart) => drawHighlight(chart, latest.current.highlight ?? null, css('--accent-soft'))],
      setCursor: [(chart) => setReadout(describeCursor(chart, latest.current))],
      ready: [
        (chart) => {
          chart.over.addEventListener('click', () => {
            if (chart.cursor.left !== undefined)
              latest.current.onPick?.(chart.posToVal(chart.cursor.left, 'x'));
          });
        },
      ],
    },
  };
}

function padded(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  const margin = (max - min || Math.abs(max) || 1) * 0.08;
  return [min >= 0 ? Math.max(0, min - margin) : min - margin, max + margin];
}

function drawHighlight(chart: uPlot, span: { from: number; to: number } | null, color: string): void {
  if (!span) return;
  const left = chart.valToPos(span.from, 'x', true);
  const right = chart.valToPos(span.to, 'x', true);
  chart.ctx.save();
  chart.ctx.fillStyle = color;
  chart.ctx.fillRect(left, chart.bbox.top, right - left, chart.bbox.height);
  chart.ctx.restore();
}

function describeCursor(chart: uPlot, { lines, formatX, formatY, xLabel }: Props): string {
  const index = chart.cursor.idx;
  if (index === null || index === undefined || (chart.cursor.left ?? -1) < 0) return '';
  const x = chart.data[0][index];
  const values = lines.flatMap((line, at) => {
    const y = chart.data[at + 1]?.[index];
    return typeof y === 'number' && !line.dashed ? [`${line.label} ${formatY(y)}`] : [];
  });
  return x === undefined ? '' : `${xLabel} ${formatX(x)}: ${values.join(' · ')}`;
}

/** One x column for all lines: undefined where a line has no point (drawn across), null where it breaks. */
function tabulate(lines: readonly Line[]): uPlot.AlignedData {
  const tables = lines.map((line): uPlot.AlignedData => [line.points.x, line.points.y]);
  return tables.length
    ? uPlot.join(
        tables,
        lines.map(() => [2, 2]),
      )
    : [[]];
}

function useDark(): boolean {
  const [dark, setDark] = useState(() => matchMedia('(prefers-color-scheme: dark)').matches);
  useEffect(() => {
    const query = matchMedia('(prefers-color-scheme: dark)');
    const changed = () => setDark(query.matches);
    query.addEventListener('change', changed);
    return () => query.removeEventListener('change', changed);
  }, []);
  return dark;
}
