/** How a receipt was judged: what each attestor committed to and showed, and the median that is paid. */

import type { Settlement } from '@/api/types';
import { unpackReceipts, unpackScores } from '@/chain/typedData';
import { medianQuality } from '@/lib/money';

export type Part = { member: number; score: number | null };
export type Judging = {
  epoch: number;
  batch: number;
  /** By member of the epoch's set; a score of null was committed to and never shown. */
  parts: Part[];
  median: number;
};

/** The judging of a node's receipt; null when the round's batches hold none of it. Throws RangeError for torn data. */
export function judgingOf({ batches }: Settlement, nodeId: number): Judging | null {
  for (const { header, receipts, attestations } of batches) {
    const index = unpackReceipts(receipts).findIndex((receipt) => receipt.nodeId === nodeId);
    if (index < 0) continue;
    const parts = attestations.map(({ member, scores, signature }) => ({
      member,
      score: signature === '0x' ? null : (unpackScores(scores)[index] as number),
    }));
    const shown = parts.flatMap(({ score }) => score ?? []);
    return { epoch: header.epoch, batch: header.batch, parts, median: medianQuality(shown) };
  }
  return null;
}
