import type { Bid, Network, Node, Payment } from '@/api/types';
import { age, duration } from '@/lib/format';

/** One link of the chain from a machine to its money; the first broken one says what to do. */
export type Evidence = { ok: boolean; text: string; fix: string | null };

type Facts = {
  node: Node;
  bids: readonly Bid[];
  payments: readonly Payment[];
  network: Pick<Network, 'min_stake'>;
  now: number;
};

export function evidenceOf({ node, bids, payments, network, now }: Facts): Evidence[] {
  const standing = bids.some(
    (bid) =>
      bid.node_id === node.id &&
      (bid.state === 'taken' || (bid.state === 'open' && Date.parse(bid.expires_at) > now)),
  );
  const own = payments.filter((payment) => payment.node_id === node.id);
  const final = own
    .filter((payment) => payment.state === 'final')
    .sort((a, b) => Date.parse(b.final_at as string) - Date.parse(a.final_at as string))[0];
  const failed = own.find((payment) => payment.state === 'failed');
  return [
    link(
      node.state !== 'retired',
      node.state === 'retired' ? 'Retired: it takes no more work' : `Registered on chain as node ${node.id}`,
      null,
    ),
    link(
      BigInt(node.stake) >= BigInt(network.min_stake),
      'Stake covers it',
      'Add stake: below the minimum a node gets no work.',
    ),
    heartbeat(node, now),
    ...suspended(node, now),
    link(
      standing,
      standing ? 'A bid stands' : 'No bid stands',
      'Post a standing bid below, so that jobs can seat this node.',
    ),
    node.working_on
      ? link(true, `Training job ${node.working_on.job_id}, round ${node.working_on.round}`, null)
      : link(
          node.rounds > 0 || node.state === 'online',
          node.state === 'online' ? 'Waiting for work' : 'Not working',
          null,
        ),
    failed && !final
      ? link(false, 'Its last payment failed', failed.reason)
      : link(
          final !== undefined,
          final ? `Last payment final ${age(now - Date.parse(final.final_at as string))}` : 'No payment yet',
          final ? null : 'The first one follows the first accepted contribution.',
        ),
  ];
}

function link(ok: boolean, text: string, fix: string | null): Evidence {
  return { ok, text, fix: ok ? null : fix };
}

/** Only while it is left out: nothing to tell otherwise. */
function suspended({ suspension }: Node, now: number): Evidence[] {
  const left = suspension ? Date.parse(suspension.until) - now : 0;
  if (!suspension || left <= 0) return [];
  const fix = `${suspension.reason} It comes back by itself, and is audited more often at first.`;
  return [link(false, `Left out of rounds for another ${duration(left / 1000)}`, fix)];
}

function heartbeat(node: Node, now: number): Evidence {
  if (!node.last_seen)
    return link(false, 'Its agent has not reported yet', 'Start it on the GPU machine: hypergpu agent');
  const silent = (now - Date.parse(node.last_seen)) / 1000;
  if (node.state === 'online') return link(true, `Its agent reported ${age(silent * 1000)}`, null);
  return link(
    false,
    `Its agent has been silent for ${duration(silent)}`,
    'Check that the agent runs and reaches this server: hypergpu doctor',
  );
}
