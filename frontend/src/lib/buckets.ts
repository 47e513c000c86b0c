/** Fewer points for the same picture: each bucket keeps its lowest and its highest point, so no spike is hidden. */

export type Points = { x: number[]; y: number[] };

/** `points` (sorted by x) unchanged when they are at most `2 * buckets`, else two for each bucket of equal width in x. */
export function minMaxBuckets(points: Points, buckets: number): Points {
  const { x, y } = points;
  const first = x[0];
  const last = x.at(-1);
  if (x.length <= 2 * buckets || first === undefined || last === undefined || last === first) return points;
  const result: Points = { x: [], y: [] };
  const width = (last - first) / buckets;
  let from = 0;
  for (let bucket = 0; bucket < buckets; bucket++) {
    const end = bucket === buckets - 1 ? Number.POSITIVE_INFINITY : first + (bucket + 1) * width;
    let to = from;
    let low = from;
    let high = from;
    for (; to < x.length && at(x, to) < end; to++) {
      if (at(y, to) < at(y, low)) low = to;
      if (at(y, to) > at(y, high)) high = to;
    }
    if (to > from) {
      for (const index of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        result.x.push(at(x, index));
        result.y.push(at(y, index));
      }
    }
    from = to;
  }
  return result;
}

function at(values: number[], index: number): number {
  return values[index] as number;
}
