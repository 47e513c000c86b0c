/** Where an operator's money is, by the contract's own views; null until the chain has answered. */

import type { Address } from 'viem';
import { useReadContract, useReadContracts } from 'wagmi';
import { useNetwork } from '@/api/network';
import { computeMarketAbi } from '@/chain/abi';

/** Base units. `credit` is `withdrawable` and what is still in its challenge window; `earned - credit` has left. */
export type Money = { earned: bigint; credit: bigint; withdrawable: bigint };

/** Base units, but for `instantShare` in basis points and `challengeWindow` in seconds. */
export type Standing = Money & {
  /** What a proven fault can still reach: bonded stake and what is unbonding. */
  atRisk: bigint;
  /** Withdrawn before its window was over, against the stake. */
  advance: bigint;
  instantShare: bigint;
  challengeWindow: bigint;
};

const REFETCH_MS = 5_000;

function useMarket() {
  const { chain, contracts } = useNetwork();
  return { address: contracts.market, abi: computeMarketAbi, chainId: chain.id } as const;
}

/** Of all nodes of an operator. */
export function useStanding(operator: Address): Standing | null {
  const market = useMarket();
  const { data } = useReadContracts({
    allowFailure: false,
    contracts: [
      { ...market, functionName: 'getOperator', args: [operator] },
      { ...market, functionName: 'getOperatorMetrics', args: [operator] },
      { ...market, functionName: 'terms' },
    ],
    query: { refetchInterval: REFETCH_MS },
  });
  if (!data) return null;
  const [{ stake, unbonding, advance }, { earned, credit, withdrawable }, terms] = data;
  return {
    earned,
    credit,
    withdrawable,
    atRisk: stake + unbonding,
    advance,
    instantShare: BigInt(terms.instantShare),
    challengeWindow: terms.challengeWindow,
  };
}

/** Of one node. */
export function useNodeMoney(nodeId: number): Money | null {
  const market = useMarket();
  const { data } = useReadContract({
    ...market,
    functionName: 'getNodeMetrics',
    args: [nodeId],
    query: { refetchInterval: REFETCH_MS },
  });
  return data ?? null;
}

/** What of the credit waits until it can no longer be disputed. */
export function waiting({ credit, withdrawable }: Money): bigint {
  return credit - withdrawable;
}
