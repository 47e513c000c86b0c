import { minMaxBuckets } from '@/lib/buckets';

type Props = { values: readonly number[]; label: string; width?: number; height?: number };

/** A tiny line without axes; `label` says what it shows. */
export function Sparkline({ values, label, width = 130, height = 34 }: Props) {
  if (values.length < 2) return null;
  const points = minMaxBuckets({ x: values.map((_, index) => index), y: [...values] }, width / 2);
  const low = Math.min(...points.y);
  const span = Math.max(...points.y) - low || 1;
  const last = points.x.at(-1) as number;
  const place = (index: number): [number, number] => [
    ((points.x[index] as number) / last) * width,
    height - 3 - (((points.y[index] as number) - low) / span) * (height - 6),
  ];
  const path = points.x
    .map((_, index) =>
      place(index)
        .map((value) => value.toFixed(1))
        .join(','),
    )
    .join(' ');
  const [x, y] = place(points.x.length - 1);
  return (
    <svg
      className="sparkline"
      width={width}
      height={height}
      viewBox={`0 0 ${width} ${height}`}
      role="img"
      aria-label={label}
    >
      <polyline points={path} fill="none" stroke="var(--accent)" strokeWidth="1.8" strokeLinejoin="round" />
      <circle cx={x} cy={y} r="2.8" fill="var(--accent)" />
    </svg>
  );
}
