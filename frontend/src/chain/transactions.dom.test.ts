import { waitFor } from '@testing-library/react';
import { HttpResponse, http as mswHttp } from 'msw';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { createConfig, http } from 'wagmi';
import { connect } from 'wagmi/actions';
import { mock } from 'wagmi/connectors';
import type { Network } from '@/api/types';
import { FakeChain } from '@/test/chain';
import { REQUESTER, network as settings } from '@/test/fixtures';
import { server } from '@/test/server';
import { chainOf } from './config';
import { withdraw } from './contracts';
import { resumeTransactions, type Stage, sendTransaction, transactions } from './transactions';

const network: Network = { ...settings, chain: { ...settings.chain, block_seconds: 0.01 } };
const KEY = 'withdraw 1';
const request = { key: KEY, title: 'Withdraw', call: withdraw(network, 1, 5n, REQUESTER) };
const now = () => transactions.all().get(KEY);

let chain: FakeChain;
let indexed: number;
let stages: Stage[];

async function wallet(chainId = 31337) {
  const other = { ...chainOf(network), id: 1, name: 'Other' };
  const config = createConfig({
    chains: [chainOf(network), other],
    connectors: [mock({ accounts: [REQUESTER] })],
    transports: {
      31337: http('http://localhost:8545/', { retryCount: 0 }),
      1: http('http://localhost:8545/', { retryCount: 0 }),
    },
    pollingInterval: 50,
  });
  await connect(config, {
    connector: config.connectors[0] as (typeof config.connectors)[0],
    chainId: chainId as 31337,
  });
  return config;
}

const reaches = (stage: Stage) => waitFor(() => expect(now()?.stage).toBe(stage), { timeout: 5_000 });

/** A replacement is recognised by who looked at the first transaction while it was pending. */
const seen = () =>
  waitFor(() => expect(chain.asked).toContain('eth_getTransactionByHash'), { timeout: 5_000 });

beforeEach(() => {
  transactions.forget(KEY);
  chain = new FakeChain();
  indexed = 0;
  stages = [];
  server.use(
    chain.handler(),
    mswHttp.get('*/api/v1/network', () => HttpResponse.json({ ...network, indexed_block: indexed })),
  );
  const stop = transactions.watch(() => {
    const stage = now()?.stage;
    if (stage && stages.at(-1) !== stage) stages.push(stage);
  });
  return stop;
});

describe('a transaction', () => {
  it('succeeds only when it is final and recorded, stage by stage', async () => {
    const sending = sendTransaction(await wallet(), network, request);
    await reaches('sent');
    chain.mine();
    expect(await sending).toBe(true);
    expect(now()).toMatchObject({ stage: 'included', block: 11, failure: null });
    chain.finalize();
    await reaches('final');
    indexed = 11;
    await reaches('recorded');
    expect(stages).toEqual(['preflight', 'wallet', 'sent', 'included', 'final', 'recorded']);
  });

  it('never opens the wallet when the contract would refuse, and tells its error in words', async () => {
    chain.refuse('InsufficientStake', [200n, 100n]);
    expect(await sendTransaction(await wallet(), network, request)).toBe(false);
    expect(now()).toMatchObject({ stage: 'preflight', hash: null });
    expect(now()?.failure?.body).toBe(
      'The stake does not cover this many nodes. Raise the stake. [InsufficientStake(200, 100)]',
    );
    expect(chain.sent).toEqual([]);
  });

  it('says that nothing was sent when the user declines', async () => {
    chain.errors.set('eth_sendTransaction', { code: 4001, message: 'User rejected the request.' });
    expect(await sendTransaction(await wallet(), network, request)).toBe(false);
    expect(now()).toMatchObject({
      stage: 'wallet',
      hash: null,
      failure: { kind: 'declined', body: 'Nothing was sent.' },
    });
  });

  it('checks the chain at the last click', async () => {
    expect(await sendTransaction(await wallet(1), network, request)).toBe(false);
    expect(now()?.failure).toMatchObject({ kind: 'chain', remedy: 'switch' });
    expect(chain.sent).toEqual([]);
  });

  it('says how much gas is missing before the wallet opens', async () => {
    chain.balance = 0n;
    expect(await sendTransaction(await wallet(), network, request)).toBe(false);
    expect(now()?.failure).toMatchObject({ kind: 'gas', remedy: 'gas' });
    expect(now()?.failure?.body).toContain('0.0001 ETH more');
  });

  it('is no success when it was included and refused', async () => {
    const sending = sendTransaction(await wallet(), network, request);
    await reaches('sent');
    chain.mine({ ok: false });
    expect(await sending).toBe(false);
    expect(now()?.failure).toMatchObject({ kind: 'reverted' });
  });

  it('steps back when a reorganisation takes its block, and goes on when it is included again', async () => {
    const sending = sendTransaction(await wallet(), network, request);
    await reaches('sent');
    chain.mine();
    await sending;
    chain.included.clear();
    await waitFor(() => expect(now()).toMatchObject({ stage: 'sent', block: null }), { timeout: 5_000 });
    expect(now()?.note).toMatch(/took back the block/);
    chain.mine();
    chain.finalize();
    indexed = 12;
    await reaches('recorded');
  });

  it('follows the dearer one that took its place', async () => {
    const sending = sendTransaction(await wallet(), network, request);
    await reaches('sent');
    await seen();
    const hash = chain.replace({ cancel: false });
    expect(await sending).toBe(true);
    expect(now()).toMatchObject({ stage: 'included', hash, failure: null });
    expect(now()?.note).toMatch(/replaced/);
  });

  it('says so when it was cancelled in the wallet', async () => {
    const sending = sendTransaction(await wallet(), network, request);
    await reaches('sent');
    await seen();
    chain.replace({ cancel: true });
    expect(await sending).toBe(false);
    expect(now()?.failure).toMatchObject({ kind: 'cancelled' });
  });

  it('survives a reload', async () => {
    const sending = sendTransaction(await wallet(), network, request);
    await reaches('sent');
    vi.resetModules();
    const reloaded = await import('./transactions');
    expect(reloaded.transactions.all().get(KEY)).toMatchObject({ stage: 'sent', hash: chain.sent[0] });
    reloaded.resumeTransactions(await wallet(), network);
    chain.mine();
    chain.finalize();
    indexed = 11;
    await waitFor(() => expect(reloaded.transactions.all().get(KEY)?.stage).toBe('recorded'), {
      timeout: 5_000,
    });
    await sending;
  });

  it('leaves what belongs to another chain alone', async () => {
    transactions.put({
      key: KEY,
      title: 'Old',
      chainId: 5,
      from: REQUESTER,
      stage: 'sent',
      hash: `0x${'1'.repeat(64)}`,
      block: null,
      failure: null,
      note: null,
      startedAt: Date.now(),
    });
    resumeTransactions(await wallet(), network);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(now()?.stage).toBe('sent');
  });
});
