import {
  createContext,
  type ReactNode,
  use,
  useCallback,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import { type Link, LiveSocket } from './socket';
import { type Loader, TopicDriver, type TopicView } from './topic';

type Entry = { driver: TopicDriver; users: number; closing: ReturnType<typeof setTimeout> | undefined };
type Hub = { socket: LiveSocket; topics: Map<string, Entry>; watchers: Set<() => void> };

const RealtimeContext = createContext<Hub | null>(null);

/** A topic outlives its last user by a moment, so that going back to a page finds it live. */
const LINGER_MS = 5_000;

export function RealtimeProvider({ url, children }: { url?: string; children: ReactNode }) {
  const [hub] = useState<Hub>(() => ({
    socket: new LiveSocket(url ?? defaultUrl()),
    topics: new Map(),
    watchers: new Set(),
  }));
  useEffect(() => {
    hub.socket.start();
    return () => hub.socket.stop();
  }, [hub]);
  return <RealtimeContext value={hub}>{children}</RealtimeContext>;
}

function defaultUrl(): string {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws/v1/events`;
}

function useHub(): Hub {
  const hub = use(RealtimeContext);
  if (!hub) throw new Error('useTopic needs a RealtimeProvider above it.');
  return hub;
}

export type TopicSource = { topic: string; load: Loader };
export type LiveTopic = TopicView & { retry: () => void };

/** The live view of one topic. */
export function useTopic(source: TopicSource): LiveTopic {
  return useTopics([source])[0] as LiveTopic;
}

/** The live views of several topics, in order. A topic's first user brings the loader that counts. */
export function useTopics(sources: readonly TopicSource[]): LiveTopic[] {
  const hub = useHub();
  const key = sources.map((source) => source.topic).join(' ');
  // biome-ignore lint/correctness/useExhaustiveDependencies: a loader belongs to its topic, and topics are the key
  const drivers = useMemo(() => sources.map((source) => entryFor(hub, source).driver), [hub, key]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: as above
  useEffect(() => {
    const entries = sources.map((source) => entryFor(hub, source));
    for (const entry of entries) acquire(hub, entry);
    return () => entries.forEach((entry, at) => void release(hub, (sources[at] as TopicSource).topic, entry));
  }, [hub, key]);
  const subscribe = useCallback(
    (changed: () => void) => {
      const stops = drivers.map((driver) => driver.watch(changed));
      return () => stops.forEach((stop) => void stop());
    },
    [drivers],
  );
  const cache = useRef<{ views: TopicView[]; result: LiveTopic[] }>({ views: [], result: [] });
  return useSyncExternalStore(subscribe, () => {
    const views = drivers.map((driver) => driver.view);
    const same =
      views.length === cache.current.views.length &&
      views.every((view, at) => view === cache.current.views[at]);
    if (!same)
      cache.current = { views, result: drivers.map((driver) => ({ ...driver.view, retry: driver.retry })) };
    return cache.current.result;
  });
}

function entryFor(hub: Hub, { topic, load }: TopicSource): Entry {
  const known = hub.topics.get(topic);
  if (known) return known;
  const entry: Entry = { driver: new TopicDriver(topic, hub.socket, load), users: 0, closing: undefined };
  hub.topics.set(topic, entry);
  return entry;
}

function acquire(hub: Hub, entry: Entry): void {
  clearTimeout(entry.closing);
  if (entry.users++ === 0 && entry.closing === undefined) entry.driver.start();
  entry.closing = undefined;
  for (const watcher of hub.watchers) watcher();
}

function release(hub: Hub, topic: string, entry: Entry): void {
  if (--entry.users > 0) return;
  entry.closing = setTimeout(() => {
    entry.driver.stop();
    hub.topics.delete(topic);
    for (const watcher of hub.watchers) watcher();
  }, LINGER_MS);
}

/** The socket's state, for the freshness chip. */
export function useLink(): Link {
  const { socket } = useHub();
  return useSyncExternalStore(socket.watch, () => socket.link);
}

/** Events that are known to be missing, over all topics in use. */
export function useMissing(): number {
  const hub = useHub();
  const subscribe = useMemo(
    () => (changed: () => void) => {
      const stops = new Map<TopicDriver, () => void>();
      const attach = () => {
        for (const { driver } of hub.topics.values()) {
          if (!stops.has(driver)) stops.set(driver, driver.watch(changed));
        }
        changed();
      };
      attach();
      hub.watchers.add(attach);
      return () => {
        hub.watchers.delete(attach);
        for (const stop of stops.values()) stop();
      };
    },
    [hub],
  );
  return useSyncExternalStore(subscribe, () => {
    let missing = 0;
    for (const { driver } of hub.topics.values()) missing += driver.view.missing;
    return missing;
  });
}
