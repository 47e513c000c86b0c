/**
 * Transactions from preflight to the server's record, and the store that pages read them from.
 *
 * A transaction succeeds when it is final and recorded, never at broadcast. What is pending survives a reload.
 */

import type { Abi, Address, Hash, PublicClient } from 'viem';
import type { Config } from 'wagmi';
import { getConnection, getPublicClient, simulateContract, writeContract } from 'wagmi/actions';
import { fetchNetwork } from '@/api/endpoints';
import type { Network } from '@/api/types';
import { pollingMs } from './config';
import { describeFailure, FAILURES, type Failure, failure, noGas, wrongChain } from './failures';
import { type Permit, withPermit } from './permit';

export type Stage = 'preflight' | 'wallet' | 'sent' | 'included' | 'final' | 'recorded';
export const STAGES: readonly Stage[] = ['preflight', 'wallet', 'sent', 'included', 'final', 'recorded'];

export type Transaction = {
  /** What it is for, such as `register 0x…`: at most one at a time. */
  key: string;
  title: string;
  chainId: number;
  from: Address;
  stage: Stage;
  hash: Hash | null;
  block: number | null;
  failure: Failure | null;
  /** What changed on the way: replaced by a dearer one, dropped by a reorganisation, slow. */
  note: string | null;
  startedAt: number;
};

export type Call = { address: Address; abi: Abi; functionName: string; args: readonly unknown[] };

const STORAGE = 'hypergpu.transactions';
const KEEP_MS = 24 * 3600 * 1000;

class TransactionStore {
  private transactions: ReadonlyMap<string, Transaction> = restore();
  private readonly watchers = new Set<() => void>();

  all = (): ReadonlyMap<string, Transaction> => this.transactions;

  watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  };

  put(transaction: Transaction): Transaction {
    this.replace(new Map(this.transactions).set(transaction.key, transaction));
    return transaction;
  }

  change(key: string, change: Partial<Transaction>): Transaction {
    const known = this.transactions.get(key);
    if (!known) throw new Error(`no transaction ${key}`);
    return this.put({ ...known, ...change });
  }

  forget = (key: string): void => {
    const next = new Map(this.transactions);
    next.delete(key);
    this.replace(next);
  };

  private replace(next: ReadonlyMap<string, Transaction>): void {
    this.transactions = next;
    const sent = [...next.values()].filter((transaction) => transaction.hash !== null);
    localStorage.setItem(STORAGE, JSON.stringify(sent));
    for (const watcher of this.watchers) watcher();
  }
}

/** Only what was sent comes back: a request that still hung in a wallet is the wallet's to show. */
function restore(): ReadonlyMap<string, Transaction> {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE) ?? '[]') as Transaction[];
    const recent = stored.filter((transaction) => Date.now() - transaction.startedAt < KEEP_MS);
    return new Map(recent.map((transaction) => [transaction.key, transaction]));
  } catch {
    return new Map();
  }
}

export const transactions = new TransactionStore();

export function isPending({ stage, failure }: Transaction): boolean {
  return failure === null && stage !== 'recorded';
}

export type Request = { key: string; title: string; call: Call; permit?: Permit };

/**
 * Simulates, asks the wallet and sends; with a permit the wallet signs that first. Resolves when the transaction is included (true), or failed (false), and goes
 * on following it until it is recorded. Failures are in the store, in words.
 */
export async function sendTransaction(
  config: Config,
  network: Network,
  { key, title, call: act, permit }: Request,
): Promise<boolean> {
  const { address, chainId } = getConnection(config);
  const from = address ?? '0x0000000000000000000000000000000000000000';
  const startedAt = Date.now();
  const chain = network.chain.id;
  transactions.put({
    key,
    title,
    chainId: chain,
    from,
    stage: 'preflight',
    hash: null,
    block: null,
    failure: null,
    note: null,
    startedAt,
  });
  if (!address) return fail(key, FAILURES.disconnected);
  if (chainId !== chain) return fail(key, wrongChain(network.chain.name));
  try {
    const client = publicClient(config, chain);
    if (permit) transactions.change(key, { stage: 'wallet' });
    const call = permit ? await withPermit(config, client, network, act, permit) : act;
    const request = { ...call, account: address, chainId: chain };
    const simulated = await simulateContract(config, request);
    const short = await missingGas(client, call, address, network);
    if (short) return fail(key, short);
    transactions.change(key, { stage: 'wallet' });
    const hash = await writeContract(config, simulated.request);
    transactions.change(key, { stage: 'sent', hash });
  } catch (error) {
    return fail(key, describeFailure(error, { chain: network.chain.name }));
  }
  return follow(config, network, key);
}

function fail(key: string, reason: Failure): false {
  transactions.change(key, { failure: reason });
  return false;
}

function publicClient(config: Config, chainId: number): PublicClient {
  const client = getPublicClient(config, { chainId });
  if (!client) throw new Error(`no client for chain ${chainId}`);
  return client as PublicClient;
}

async function missingGas(
  client: PublicClient,
  call: Call,
  account: Address,
  network: Network,
): Promise<Failure | null> {
  const [gas, price, held] = await Promise.all([
    client.estimateContractGas({ ...call, account }),
    client.getGasPrice(),
    client.getBalance({ address: account }),
  ]);
  const needed = gas * price;
  return held >= needed ? null : noGas(needed, held, network.chain.currency.symbol);
}

/** Takes up everything that a reload interrupted. */
export function resumeTransactions(config: Config, network: Network): void {
  for (const transaction of transactions.all().values()) {
    if (isPending(transaction) && transaction.chainId === network.chain.id)
      void follow(config, network, transaction.key);
  }
}

const following = new Set<string>();

async function follow(config: Config, network: Network, key: string): Promise<boolean> {
  const client = publicClient(config, network.chain.id);
  const included = await untilIncluded(client, key);
  if (included && !following.has(key)) {
    following.add(key);
    void untilRecorded(client, network, key).finally(() => following.delete(key));
  }
  return included;
}

async function untilIncluded(client: PublicClient, key: string): Promise<boolean> {
  let cancelled = false;
  for (;;) {
    const hash = transactions.all().get(key)?.hash;
    if (!hash) return false;
    try {
      const receipt = await client.waitForTransactionReceipt({
        hash,
        timeout: 60_000,
        onReplaced: ({ reason, transaction }) => {
          cancelled = reason === 'cancelled';
          transactions.change(key, {
            hash: transaction.hash,
            note: 'You replaced this transaction in your wallet; this is the new one.',
          });
        },
      });
      if (cancelled) return fail(key, FAILURES.cancelled);
      const block = Number(receipt.blockNumber);
      transactions.change(key, { hash: receipt.transactionHash, block });
      if (receipt.status === 'reverted') return fail(key, reverted(block));
      transactions.change(key, { stage: 'included' });
      return true;
    } catch {
      if (!transactions.all().has(key)) return false;
      transactions.change(key, { note: 'Not included yet. You can speed it up in your wallet.' });
      await pause(2000);
    }
  }
}

function reverted(block: number): Failure {
  return failure(
    'reverted',
    'Included, but refused',
    `The contract refused it in block ${block}; only gas was spent.`,
  );
}

async function untilRecorded(client: PublicClient, network: Network, key: string): Promise<void> {
  const wait = pollingMs(network);
  for (;;) {
    const transaction = transactions.all().get(key);
    if (!transaction || !isPending(transaction) || transaction.block === null || !transaction.hash) return;
    try {
      if (transaction.stage === 'included') await checkFinal(client, transaction);
      else if ((await fetchNetwork()).indexed_block >= transaction.block)
        transactions.change(key, { stage: 'recorded', note: null });
    } catch {
      // The chain or the server does not answer right now; the link's chip says so, and asking goes on.
    }
    await pause(wait);
  }
}

async function checkFinal(client: PublicClient, { key, hash, block }: Transaction): Promise<void> {
  const finalized = await client.getBlock({ blockTag: 'finalized' });
  const receipt = await client.getTransactionReceipt({ hash: hash as Hash }).catch(() => null);
  if (!receipt) {
    transactions.change(key, {
      stage: 'sent',
      block: null,
      note: 'The chain took back the block that held it; waiting again.',
    });
    const included = await untilIncluded(client, key);
    if (!included) return;
  } else if (Number(finalized.number) >= (block as number)) {
    transactions.change(key, { stage: 'final', block: Number(receipt.blockNumber), note: null });
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
