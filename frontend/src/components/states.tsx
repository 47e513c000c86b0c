/** How states are told: a word, a colour, and what it means. Colour is never alone. */

import type { Contribution, JobState, Node, NodeState, PaymentState } from '@/api/types';
import { Chip, Num, type Tone } from './basics';

type Telling = { label: string; tone: Tone; meaning: string; beat?: boolean; hollow?: boolean };

const JOB: Record<JobState, Telling> = {
  draft: {
    label: 'draft',
    tone: 'plain',
    meaning: 'Waits for its escrow on chain. Nothing runs before.',
    hollow: true,
  },
  funded: { label: 'funded', tone: 'info', meaning: 'The escrow is final; nodes are being seated.' },
  running: { label: 'running', tone: 'info', meaning: 'Nodes are training it.', beat: true },
  paused: {
    label: 'paused',
    tone: 'warn',
    meaning: 'Its escrow does not cover another round; fund it, and it goes on.',
  },
  completed: { label: 'completed', tone: 'ok', meaning: 'Training is done; the last payments are settling.' },
  closed: {
    label: 'closed',
    tone: 'ok',
    meaning: 'Everything is paid, and what was left went back to the requester.',
  },
  stopped: { label: 'stopped', tone: 'warn', meaning: 'The requester stopped it.' },
  failed: { label: 'failed', tone: 'bad', meaning: 'It could not go on.' },
};

const NODE: Record<NodeState, Telling> = {
  online: { label: 'online', tone: 'ok', meaning: 'Its agent was heard from in the last moments.' },
  offline: { label: 'offline', tone: 'bad', meaning: 'Its agent has not been heard from.', hollow: true },
  registered: {
    label: 'registered',
    tone: 'plain',
    meaning: 'Registered on chain; its agent has not reported yet.',
    hollow: true,
  },
  retired: { label: 'retired', tone: 'plain', meaning: 'Takes no more work.', hollow: true },
};

const PAYMENT: Record<PaymentState, Telling> = {
  attesting: {
    label: 'attesting',
    tone: 'plain',
    meaning: 'Attestors are signing its quality.',
    hollow: true,
  },
  queued: {
    label: 'queued',
    tone: 'plain',
    meaning: 'Waits for the settlement transaction of its round.',
    hollow: true,
  },
  sent: { label: 'sent', tone: 'info', meaning: 'The transaction is on its way to a block.', beat: true },
  included: { label: 'included', tone: 'info', meaning: 'In a block that is not final yet.' },
  final: { label: 'final', tone: 'ok', meaning: 'Credited on chain for good.' },
  failed: { label: 'failed', tone: 'bad', meaning: 'The transaction was refused.' },
};

const CONTRIBUTION: Record<Contribution['state'], Telling> = {
  received: { label: 'scoring', tone: 'info', meaning: 'Handed in; being checked and scored.', beat: true },
  checked: { label: 'scoring', tone: 'info', meaning: 'Passed the checks; being scored.', beat: true },
  accepted: {
    label: 'accepted',
    tone: 'ok',
    meaning: 'Passed the checks; its payment follows when the round closes.',
  },
  rejected: {
    label: 'rejected',
    tone: 'bad',
    meaning: 'Refused; it is not paid and did not touch the model.',
  },
};

function Told({ telling: { label, tone, meaning, beat, hollow } }: { telling: Telling }) {
  return (
    <Chip tone={tone} beat={beat} hollow={hollow} title={meaning}>
      {label}
    </Chip>
  );
}

/** A server newer than this page may know more states: they are shown by name. */
function telling<State extends string>(table: Record<State, Telling>, state: State): Telling {
  return table[state] ?? { label: state, tone: 'plain', meaning: state };
}

export const JobStateChip = ({ state }: { state: JobState }) => <Told telling={telling(JOB, state)} />;
export const NodeStateChip = ({ state }: { state: NodeState }) => <Told telling={telling(NODE, state)} />;
export const PaymentStateChip = ({ state }: { state: PaymentState }) => (
  <Told telling={telling(PAYMENT, state)} />
);
export const ContributionStateChip = ({ state }: { state: Contribution['state'] }) => (
  <Told telling={telling(CONTRIBUTION, state)} />
);

export const jobMeaning = (state: JobState) => telling(JOB, state).meaning;

/** OpenSkill: a node's place among those it shared rounds with. New nodes start at 25 ± 8.3. */
export function Rating({ node: { rating } }: { node: Pick<Node, 'rating'> }) {
  if (!rating) return <Num value={null} />;
  const title =
    'How its updates improve the model beside those of its rounds (OpenSkill; everyone starts at 25 ± 8.3). ' +
    'It falls with every round in which others do better, and far when an audit fails.';
  return <Num value={`${rating.mu.toFixed(1)} ± ${rating.sigma.toFixed(1)}`} title={title} />;
}

/** A node that an audit has left out of rounds, until then. */
export function SuspensionChip({ node, now }: { node: Pick<Node, 'suspension'>; now: number }) {
  if (!node.suspension || Date.parse(node.suspension.until) <= now) return null;
  return (
    <Chip tone="bad" title={`Left out of rounds until ${node.suspension.until}. ${node.suspension.reason}`}>
      left out
    </Chip>
  );
}

/** A node keeps its colour in charts and tables alike. */
export function seriesColor(nodeId: number): string {
  return `--series-${(((nodeId - 1) % 8) + 8) % 8}`;
}

/** Operators may leave their nodes nameless. */
export function nodeName(node: Pick<Node, 'id' | 'name'> | undefined, id?: number): string {
  return node?.name || `node ${node?.id ?? id}`;
}

export function NodeDot({ id }: { id: number }) {
  return <span className="dot" style={{ background: `var(${seriesColor(id)})` }} aria-hidden="true" />;
}
