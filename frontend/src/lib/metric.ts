import type { Metric } from '@/api/types';
import { accuracy, loss } from './format';

export type MetricName = 'loss' | 'accuracy';

export function metricValue(metric: Metric | null, name: MetricName): number | null {
  return metric?.[name] ?? null;
}

export function formatMetric(value: number | null, name: MetricName): string {
  if (value === null) return '–';
  return name === 'accuracy' ? accuracy(value) : loss(value);
}

/** How far `now` has come from `start` to `target`, in percent; 100 when it is past the target. */
export function towards(start: number | null, now: number | null, target: number): number {
  if (start === null || now === null || start === target) return 0;
  return Math.max(0, Math.min(100, ((now - start) / (target - start)) * 100));
}
