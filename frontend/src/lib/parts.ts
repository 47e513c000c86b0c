import type { Part } from '@/api/types';

type Seconds = NonNullable<Part['actual']>;

export const secondsOf = (phases: Seconds): number => phases.fetch_s + phases.compute_s + phases.upload_s;

/** What a part took beside what was predicted, as a share of the prediction; null until both are known. */
export function errorOf(predicted: Part['predicted'], actual: Part['actual']): number | null {
  if (!predicted || !actual || secondsOf(predicted) <= 0) return null;
  return secondsOf(actual) / secondsOf(predicted) - 1;
}
