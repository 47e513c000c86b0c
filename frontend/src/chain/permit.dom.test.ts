import {
  type Abi,
  createPublicClient,
  decodeFunctionData,
  domainSeparator,
  encodeAbiParameters,
  type Hex,
  http,
  type PublicClient,
  recoverTypedDataAddress,
  serializeSignature,
  toFunctionSelector,
} from 'viem';
import { privateKeyToAccount } from 'viem/accounts';
import { beforeEach, expect, it } from 'vitest';
import { createConfig } from 'wagmi';
import { connect } from 'wagmi/actions';
import { mock } from 'wagmi/connectors';
import { FakeChain } from '@/test/chain';
import { network } from '@/test/fixtures';
import { server } from '@/test/server';
import { computeMarketAbi } from './abi';
import { chainOf } from './config';
import { createJob } from './contracts';
import { permitDomain } from './permit';
import { sendTransaction, transactions } from './transactions';

const account = privateKeyToAccount(`0x${'11'.repeat(32)}`);
const owner = account.address;
const domain = {
  name: 'HyperGPU Test USD',
  version: '1',
  chainId: network.chain.id,
  verifyingContract: network.contracts.token,
};
const act = createJob(network, { spec: `0x${'ab'.repeat(32)}`, escrow: 500n, maxRate: 5n });
const text = (value: string) => encodeAbiParameters([{ type: 'string' }], [value]);
const client = createPublicClient({
  chain: chainOf(network),
  transport: http('http://localhost:8545/', { retryCount: 0 }),
}) as PublicClient;

let chain: FakeChain;

beforeEach(() => {
  chain = new FakeChain();
  chain.account = account;
  chain.answers.set(toFunctionSelector('name()'), text(domain.name));
  chain.answers.set(toFunctionSelector('version()'), '0x');
  chain.answers.set(toFunctionSelector('DOMAIN_SEPARATOR()'), domainSeparator({ domain }));
  chain.answers.set(
    toFunctionSelector('multicall(bytes[])'),
    encodeAbiParameters([{ type: 'bytes[]' }], [[]]),
  );
  server.use(chain.handler());
});

async function wallet() {
  const config = createConfig({
    chains: [chainOf(network)],
    connectors: [mock({ accounts: [owner] })],
    transports: { [network.chain.id]: http('http://localhost:8545/', { retryCount: 0 }) },
    pollingInterval: 50,
  });
  await connect(config, { connector: config.connectors[0] as (typeof config.connectors)[0] });
  return config;
}

it('deposits with one transaction: the permit for exactly the amount, then the act', async () => {
  const config = await wallet();
  const found = await permitDomain(client, network, owner);
  expect(found).toEqual(domain);
  const permit = { domain, owner, amount: 500n };
  void sendTransaction(config, network, { key: 'create', title: 'Create', call: act, permit });
  await expect.poll(() => transactions.all().get('create')?.stage).toBe('sent');
  expect(chain.data).toHaveLength(1);

  const market = computeMarketAbi as Abi;
  const { functionName, args } = decodeFunctionData({ abi: market, data: chain.data[0] as Hex });
  expect(functionName).toBe('multicall');
  const [first, second] = ((args ?? [])[0] as Hex[]).map((data) => decodeFunctionData({ abi: market, data }));
  expect(second).toEqual({ functionName: 'createJob', args: [`0x${'ab'.repeat(32)}`, 500n, 5n] });
  const [amount, deadline, v, r, s] = (first?.args ?? []) as unknown as [bigint, bigint, number, Hex, Hex];
  expect([first?.functionName, amount]).toEqual(['permit', 500n]);
  const types = {
    Permit: [
      { name: 'owner', type: 'address' },
      { name: 'spender', type: 'address' },
      { name: 'value', type: 'uint256' },
      { name: 'nonce', type: 'uint256' },
      { name: 'deadline', type: 'uint256' },
    ],
  } as const;
  const message = { owner, spender: network.contracts.market, value: 500n, nonce: 1n, deadline };
  const signature = serializeSignature({ r, s, v: BigInt(v) });
  expect(await recoverTypedDataAddress({ domain, types, primaryType: 'Permit', message, signature })).toBe(
    owner,
  );
  transactions.forget('create');
});

it('sends nothing when the permit is declined', async () => {
  chain.errors.set('eth_signTypedData_v4', { code: 4001, message: 'User rejected the request.' });
  const permit = { domain, owner, amount: 500n };
  expect(
    await sendTransaction(await wallet(), network, { key: 'create', title: '', call: act, permit }),
  ).toBe(false);
  expect(transactions.all().get('create')?.failure?.kind).toBe('declined');
  expect(chain.data).toEqual([]);
});

it.each<[string, () => void]>([
  ['a token without permits', () => chain.answers.set(toFunctionSelector('DOMAIN_SEPARATOR()'), '0x')],
  ['a token whose domain is another', () => chain.answers.set(toFunctionSelector('name()'), text('Other'))],
  ['a wallet that is a contract', () => (chain.code = '0x6000')],
])('offers no permit for %s', async (_, change) => {
  change();
  expect(await permitDomain(client, network, owner)).toBeNull();
});
