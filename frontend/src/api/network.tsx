import { queryOptions, useQuery } from '@tanstack/react-query';
import { createContext, type ReactNode, use } from 'react';
import { fetchNetwork } from './endpoints';
import type { Network } from './types';

/** The chain's head moves by itself, so this one answer is asked for again and again. */
export const networkQuery = queryOptions({
  queryKey: ['network'],
  queryFn: ({ signal }) => fetchNetwork(signal),
  refetchInterval: 3_000,
  staleTime: 3_000,
  retry: true,
  retryDelay: (attempt) => Math.min(10_000, 500 * 2 ** attempt),
});

const NetworkContext = createContext<Network | null>(null);

/** What settles where: the first answer of the server, which a deployment does not change under an open page. */
export function NetworkProvider({ network, children }: { network: Network; children: ReactNode }) {
  return <NetworkContext value={network}>{children}</NetworkContext>;
}

export function useNetwork(): Network {
  const network = use(NetworkContext);
  if (!network) throw new Error('useNetwork needs a NetworkProvider above it.');
  return network;
}

/** The newest answer, with the blocks that are indexed and final now. */
export function useHead(): { network: Network; reachable: boolean } {
  const fixed = useNetwork();
  const { data, isError, failureCount } = useQuery(networkQuery);
  return { network: data ?? fixed, reachable: !isError && failureCount < 2 };
}
