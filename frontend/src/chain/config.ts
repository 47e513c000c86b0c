import { type Chain, defineChain } from 'viem';
import { type Config, createConfig, http, injected } from 'wagmi';
import type { Network } from '@/api/types';

/** The one chain that the server settles on, as wallets and viem want it described. */
export function chainOf({ chain }: Network): Chain {
  return defineChain({
    id: chain.id,
    name: chain.name,
    nativeCurrency: chain.currency,
    rpcUrls: { default: { http: [chain.rpc_url] } },
    blockExplorers: chain.explorer_url
      ? { default: { name: 'Explorer', url: chain.explorer_url } }
      : undefined,
    testnet: chain.test,
  });
}

/** Wallets come from EIP-6963 announcements; the plain injected connector stands in when none announced itself. */
export function walletConfig(network: Network): Config {
  const chain = chainOf(network);
  return createConfig({
    chains: [chain],
    connectors: [injected()],
    multiInjectedProviderDiscovery: true,
    pollingInterval: pollingMs(network),
    transports: { [chain.id]: http(network.chain.rpc_url, { retryCount: 2 }) },
  });
}

/** About once a block, but neither a storm on fast chains nor sluggish on slow ones. */
export function pollingMs({ chain }: Network): number {
  return Math.min(4000, Math.max(500, chain.block_seconds * 1000));
}
