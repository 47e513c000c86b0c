/** The topics that pages follow, each with the call that fetches its snapshot. */

import { fetchJob, fetchJobs, fetchOperator, fetchOperators } from '@/api/endpoints';
import { type Entities, entitiesOf } from './entities';
import type { TopicSource } from './RealtimeProvider';

/** Every job of the list, and every node: one topic, so one position; the older of the two answers counts. */
export const marketTopic: TopicSource = {
  topic: 'market',
  load: async () => {
    const [list, supply] = await Promise.all([fetchJobs(), fetchOperators()]);
    const position = list.stream.seq <= supply.stream.seq ? list.stream : supply.stream;
    return { data: entitiesOf({ jobs: list.jobs, nodes: supply.nodes }), position };
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
