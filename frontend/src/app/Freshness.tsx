import { useHead } from '@/api/network';
import { Chip } from '@/components/basics';
import { clockTime, count, duration, plural } from '@/lib/format';
import { useNow } from '@/lib/useNow';
import { useLink, useMissing } from '@/realtime/RealtimeProvider';

/** How old what you see may be: live with its round trip and block, catching up, or offline since when. */
export function Freshness() {
  const link = useLink();
  const missing = useMissing();
  const { network, reachable } = useHead();
  const now = useNow();
  if (link.state === 'offline') {
    const since = link.since ?? now;
    const title = reachable
      ? 'The live connection is down; the page asks for news every few seconds instead.'
      : `Showing what was known at ${clockTime(since)}.`;
    return (
      <span data-testid="freshness" data-state="offline" role="status">
        <Chip tone={reachable ? 'warn' : 'bad'} hollow title={title}>
          {reachable ? 'polling' : 'offline'} {duration(Math.round((now - since) / 1000))}
        </Chip>
      </span>
    );
  }
  if (link.state === 'connecting' || missing > 0) {
    return (
      <span data-testid="freshness" data-state="catching-up">
        <Chip tone="warn" beat>
          {missing > 0 ? `catching up, ${plural(missing, 'event')}` : 'connecting'}
        </Chip>
      </span>
    );
  }
  return (
    <span data-testid="freshness" data-state="live">
      <Chip
        tone="ok"
        title={`Round trip to the server: median of the last pings. Block: the newest that HyperGPU has read from ${network.chain.name}.`}
      >
        live{link.rtt === null ? '' : ` · ${Math.max(1, Math.round(link.rtt))} ms`}
        <span className="roomy"> · block {count(network.indexed_block)}</span>
      </Chip>
    </span>
  );
}
