import { type Abi, type Address, encodeFunctionData, type Hex } from 'viem';
import type { Network } from '@/api/types';
import { computeMarketAbi, testUsdAbi } from './abi';
import type { Call } from './transactions';

/** The market's calls can fail inside the token: with the token's errors too, such a refusal can be put in words. */
const tokenErrors = (testUsdAbi as Abi).filter((item) => item.type === 'error');
const marketAbi: Abi = [...(computeMarketAbi as Abi), ...tokenErrors];

const market = (network: Network, functionName: string, args: readonly unknown[]): Call => ({
  address: network.contracts.market,
  abi: marketAbi,
  functionName,
  args,
});

const token = (network: Network, functionName: string, args: readonly unknown[]): Call => ({
  address: network.contracts.token,
  abi: testUsdAbi as Abi,
  functionName,
  args,
});

/** Allows the market to take exactly `amount`, never more. */
export const approve = (network: Network, amount: bigint) =>
  token(network, 'approve', [network.contracts.market, amount]);

/** Test networks only: the test token's mint is open to everybody. */
export const mint = (network: Network, to: Address, amount: bigint) => token(network, 'mint', [to, amount]);

export const registerNode = (
  network: Network,
  node: { hotKey: Address; expiresAt: bigint; stake: bigint; possession: Hex },
) => market(network, 'registerNode', [node.hotKey, node.expiresAt, node.stake, node.possession]);

export const createJob = (network: Network, job: { spec: Hex; escrow: bigint; maxRate: bigint }) =>
  market(network, 'createJob', [job.spec, job.escrow, job.maxRate]);

export const withdraw = (network: Network, nodeId: number, amount: bigint, to: Address) =>
  market(network, 'withdraw', [nodeId, amount, to]);

export const retireNode = (network: Network, nodeId: number) => market(network, 'retireNode', [nodeId]);

export const requestUnstake = (network: Network, amount: bigint) =>
  market(network, 'requestUnstake', [amount]);

export const unstake = (network: Network) => market(network, 'unstake', []);

/** Starts the challenge window of all that these nodes have earned until now. */
export const markCredit = (network: Network, nodeIds: readonly number[]) =>
  market(network, 'markCredit', [nodeIds]);

/** Makes settled rounds final: their credit is free, their quality can no longer be disputed. */
export const acceptRounds = (network: Network, jobId: number, rounds: readonly number[]) =>
  market(network, 'multicall', [
    rounds.map((round) =>
      encodeFunctionData({
        abi: marketAbi,
        functionName: 'acceptRound',
        args: [BigInt(jobId), BigInt(round), '0x'],
      }),
    ),
  ]);

export const fundJob = (network: Network, jobId: number, amount: bigint) =>
  market(network, 'fundJob', [BigInt(jobId), amount]);
