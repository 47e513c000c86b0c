import fc from 'fast-check';
import { expect, it } from 'vitest';
import { minMaxBuckets } from './buckets';

it('keeps the lowest and the highest point, the order, and no more than two points for each bucket', () => {
  const series = fc.array(fc.double({ min: -1e6, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(series, fc.integer({ min: 1, max: 50 }), (y, buckets) => {
      const x = y.map((_, index) => index);
      const kept = minMaxBuckets({ x, y }, buckets);
      expect(kept.x.length).toBeLessThanOrEqual(Math.max(2 * buckets, 0));
      expect(Math.min(...kept.y)).toBe(Math.min(...y));
      expect(Math.max(...kept.y)).toBe(Math.max(...y));
      expect(kept.x).toEqual([...kept.x].sort((a, b) => a - b));
      kept.x.forEach((at, index) => void expect(kept.y[index]).toBe(y[at]));
    }),
  );
});
