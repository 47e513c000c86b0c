/**
 * What a topic's snapshot holds, and the one way in which events change it.
 *
 * `applyEvent` upserts whole entities by id, so applying an event equals fetching again.
 */

import type {
  Assignment,
  Audit,
  Bid,
  Changes,
  Contribution,
  EventRecord,
  Job,
  Node,
  Payment,
  Round,
} from '@/api/types';

export type EntityOf = {
  jobs: Job;
  rounds: Round;
  assignments: Assignment;
  contributions: Contribution;
  nodes: Node;
  payments: Payment;
  bids: Bid;
  audits: Audit;
};
export type Kind = keyof EntityOf;
export type Entities = { readonly [K in Kind]: ReadonlyMap<number, EntityOf[K]> };

export const KINDS: readonly Kind[] = [
  'jobs',
  'rounds',
  'assignments',
  'contributions',
  'nodes',
  'payments',
  'bids',
  'audits',
];

export const NOTHING: Entities = {
  jobs: new Map(),
  rounds: new Map(),
  assignments: new Map(),
  contributions: new Map(),
  nodes: new Map(),
  payments: new Map(),
  bids: new Map(),
  audits: new Map(),
};

/** Entities of a REST answer, by id. */
export function entitiesOf(snapshot: Changes): Entities {
  return upsert(NOTHING, snapshot);
}

/** `entities` after a fact. Kinds that the event does not touch keep their identity, so that views can skip them. */
export function applyEvent(entities: Entities, event: Pick<EventRecord, 'changes'>): Entities {
  return upsert(entities, event.changes);
}

function upsert(entities: Entities, changes: Changes): Entities {
  const lists: { [K in Kind]?: readonly EntityOf[K][] } = {
    ...changes,
    jobs: changes.job ? [...(changes.jobs ?? []), changes.job] : changes.jobs,
  };
  const result = { ...entities } as { [K in Kind]: ReadonlyMap<number, EntityOf[K]> };
  for (const kind of KINDS) upsertKind(result, kind, lists[kind]);
  return result;
}

function upsertKind<K extends Kind>(
  into: { [Key in Kind]: ReadonlyMap<number, EntityOf[Key]> },
  kind: K,
  list: readonly EntityOf[K][] | undefined,
): void {
  if (!list?.length) return;
  const next = new Map(into[kind] as ReadonlyMap<number, EntityOf[K]>);
  for (const entity of list) next.set(entity.id, entity);
  (into as Record<Kind, unknown>)[kind] = next;
}

export type Gauge = { at: string; changes: Pick<Changes, 'assignments' | 'nodes'> };

/**
 * `entities` after a gauge: a hint that carries no sequence number and may come late.
 *
 * Only what gauges own is taken (progress; liveness and link), and never backwards: an older attempt or step, or a
 * node last seen earlier, changes nothing. Facts stay what the events said.
 */
export function applyGauge(entities: Entities, gauge: Gauge): Entities {
  const assignments = merge(entities.assignments, gauge.changes.assignments, newerProgress);
  const nodes = merge(entities.nodes, gauge.changes.nodes, newerHeartbeat);
  return assignments === entities.assignments && nodes === entities.nodes
    ? entities
    : { ...entities, assignments, nodes };
}

function merge<T extends { id: number }>(
  known: ReadonlyMap<number, T>,
  news: readonly T[] | undefined,
  pick: (old: T, news: T) => T,
): ReadonlyMap<number, T> {
  let result = known;
  for (const item of news ?? []) {
    const old = known.get(item.id);
    const chosen = old && pick(old, item);
    if (!chosen || chosen === old) continue;
    result = new Map(result).set(item.id, chosen);
  }
  return result;
}

function newerProgress(old: Assignment, news: Assignment): Assignment {
  if (news.attempt !== old.attempt || news.step < old.step) return old;
  return { ...old, step: news.step, steps: news.steps, losses: news.losses };
}

function newerHeartbeat(old: Node, news: Node): Node {
  if (old.state === 'retired' || seenAt(news) <= seenAt(old)) return old;
  const { state, measured, samples_per_second, last_seen, device } = news;
  return { ...old, state, measured, samples_per_second, last_seen, device };
}

function seenAt(node: Node): number {
  return node.last_seen ? Date.parse(node.last_seen) : 0;
}
