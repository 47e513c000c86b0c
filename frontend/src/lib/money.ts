/** Token amounts: whole numbers of base units from end to end, never a float, never an exponent. */

import { THIN } from './format';

/** The exact decimal of `base` units, with at least `least` decimals and no further trailing zeros. */
export function formatUnits(base: string | bigint, decimals: number, least = 2): string {
  const value = BigInt(base);
  const digits = (value < 0n ? -value : value).toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals).replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
  const fraction = digits.slice(digits.length - decimals);
  const kept = fraction.replace(/0+$/, '').padEnd(Math.min(least, decimals), '0');
  return `${value < 0n ? '−' : ''}${whole}${kept ? `.${kept}` : ''}`;
}

/** Base units of a decimal that a person typed; null when it is none, is negative or has too many decimals. */
export function parseUnits(text: string, decimals: number): bigint | null {
  const match = /^(\d{1,60})?(?:[.,](\d*))?$/.exec(text.replace(/\s/g, ''));
  if (!match || (match[1] === undefined && !match[2])) return null;
  const fraction = match[2] ?? '';
  if (fraction.length > decimals) return null;
  return BigInt((match[1] ?? '0') + fraction.padEnd(decimals, '0'));
}

/** What a receipt earns: units * rate * quality / 10,000, rounded down, as the contract computes it. */
export function reward(units: bigint, rate: bigint, quality: bigint): bigint {
  return (units * rate * quality) / 10_000n;
}

/** The quality that the contract pays for: the lower median of the attestors' scores, basis points. */
export function medianQuality(scores: readonly number[]): number {
  const sorted = [...scores].sort((a, b) => a - b);
  const middle = sorted[(sorted.length - 1) >> 1];
  if (middle === undefined) throw new RangeError('Nobody scored this.');
  return middle;
}

export function sum(amounts: Iterable<string | bigint>): bigint {
  let total = 0n;
  for (const amount of amounts) total += BigInt(amount);
  return total;
}

/** Parts per hundred of `part` in `whole`, for a bar: 0 to 100. */
export function percent(part: string | bigint, whole: string | bigint): number {
  const total = BigInt(whole);
  if (total <= 0n) return 0;
  return Math.min(100, Number((BigInt(part) * 10_000n) / total) / 100);
}
