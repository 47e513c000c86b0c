/** The topics that pages follow, each with the call that fetches its snapshot. */

import { fetchJob, fetchJobs, fetchOperator, fetchOperators, fetchPayments } from '@/api/endpoints';
import { type Entities, entitiesOf } from './entities';
import type { TopicSource } from './RealtimeProvider';

/** Jobs, nodes and recent payments: one topic, so one position, taken before the rest is read; later is no harm. */
export const marketTopic: TopicSource = {
  topic: 'market',
  load: async () => {
    const { jobs, stream } = await fetchJobs();
    const [{ nodes }, { payments }] = await Promise.all([fetchOperators(), fetchPayments()]);
    return { data: entitiesOf({ jobs, nodes, payments }), position: stream };
  },
};

export function jobTopic(id: number): TopicSource {
  return {
    topic: `job.${id}`,
    load: async () => {
      const snapshot = await fetchJob(id);
      return { data: entitiesOf(snapshot), position: snapshot.stream };
    },
  };
}

export function operatorTopic(address: string): TopicSource {
  return {
    topic: `operator.${address.toLowerCase()}`,
    load: async () => {
      const snapshot = await fetchOperator(address);
      return { data: entitiesOf(snapshot), position: snapshot.stream };
    },
  };
}

/** Newest first, by a key that sorts. */
export function listOf<T>(entities: ReadonlyMap<number, T>, key: (entity: T) => number): T[] {
  return [...entities.values()].sort((a, b) => key(b) - key(a));
}

export type { Entities };
