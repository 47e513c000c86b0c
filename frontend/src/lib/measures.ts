import type { Fact, Node, Quantity } from '@/api/types';
import { bytes, count, milliseconds } from './format';

/** Each quantity's name and how a value of it reads, with its unit. */
export const QUANTITIES: Record<Quantity, { label: string; text: (value: number) => string }> = {
  rtt: { label: 'Round trip', text: (seconds) => milliseconds(seconds * 1000) },
  up: { label: 'Up', text: perSecond },
  down: { label: 'Down', text: perSecond },
  loss: { label: 'Loss', text: (part) => `${(part * 100).toFixed(2)}\u00a0%` },
  reconnects: { label: 'Reconnects', text: count },
  speed: {
    label: 'Speed',
    text: (value) => `${value < 10 ? value.toFixed(1) : count(value)}\u00a0samples/s`,
  },
  peer_rtt: { label: 'Round trip to a node', text: (seconds) => milliseconds(seconds * 1000) },
};

function perSecond(value: number): string {
  return `${bytes(Math.round(value))}/s`;
}

/** Of the architecture that the node trained last; before its first order, of its benchmark. */
export function newestSpeed({
  measured,
  samples_per_second: benchmark,
}: Node): Omit<Fact, 'samples'> | undefined {
  const [newest] = [...(measured.speeds ?? [])].sort((a, b) => b.at.localeCompare(a.at));
  return (
    newest ?? (benchmark ? { ...benchmark, deviation: 0, source: 'benchmark', claimed: true } : undefined)
  );
}

const HOW: Record<string, string> = {
  transfer: 'from real files',
  heartbeat: 'from small requests',
  kernel: "by the kernel's count of segments",
  probe: 'by timed probes',
  peer: 'from pings of its endpoint',
  benchmark: 'by its benchmark',
  work: 'from real orders',
  emulated: 'as its link is emulated',
};

/** Who measured a value and on what. */
export function sourceOf({ source, claimed }: Pick<Fact, 'source' | 'claimed'>): string {
  return `${claimed ? "the node's word" : 'seen by the coordinator'}, ${HOW[source] ?? source}`;
}
