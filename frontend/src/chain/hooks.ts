import { useQuery } from '@tanstack/react-query';
import { useCallback, useSyncExternalStore } from 'react';
import type { Address, PublicClient } from 'viem';
import { useConfig, useConnection, usePublicClient, useReadContracts } from 'wagmi';
import { useNetwork } from '@/api/network';
import { testUsdAbi } from './abi';
import { permitDomain } from './permit';
import { type Request, sendTransaction, type Transaction, transactions } from './transactions';

export type Wallet = { address: Address | null; settled: boolean; rightChain: boolean; name: string | null };

/** The connected wallet; `settled` is false while a reload is still finding it again. */
export function useWallet(): Wallet {
  const network = useNetwork();
  const { address, chainId, status, connector } = useConnection();
  return {
    address: status === 'connected' ? address : null,
    settled: status === 'connected' || status === 'disconnected',
    rightChain: chainId === network.chain.id,
    name: connector?.name ?? null,
  };
}

export function useTransactions(): ReadonlyMap<string, Transaction> {
  return useSyncExternalStore(transactions.watch, transactions.all);
}

export function useTransaction(key: string): Transaction | undefined {
  return useTransactions().get(key);
}

export type Send = (request: Request) => Promise<boolean>;

export function useSend(): Send {
  const config = useConfig();
  const network = useNetwork();
  return useCallback((request) => sendTransaction(config, network, request), [config, network]);
}

/** What `owner` holds of the token and lets the market take, read from the chain. */
export function useFunds(owner: Address | null) {
  const { chain, contracts } = useNetwork();
  const token = { address: contracts.token, abi: testUsdAbi, chainId: chain.id } as const;
  const account = owner ?? '0x0000000000000000000000000000000000000000';
  const { data, refetch } = useReadContracts({
    allowFailure: false,
    contracts: [
      { ...token, functionName: 'balanceOf', args: [account] },
      { ...token, functionName: 'allowance', args: [account, contracts.market] },
    ],
    query: { enabled: owner !== null, refetchInterval: 5_000 },
  });
  return { balance: data?.[0], allowance: data?.[1], refetch };
}

/** Where `owner` can sign permits for the token; null where it cannot, undefined while that is being found out. */
export function usePermitDomain(owner: Address | null) {
  const network = useNetwork();
  const client = usePublicClient({ chainId: network.chain.id }) as PublicClient | undefined;
  const { data, isError } = useQuery({
    queryKey: ['permit', network.contracts.token, owner],
    queryFn: () => permitDomain(client as PublicClient, network, owner as Address),
    enabled: owner !== null && client !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
  return isError ? null : data;
}
