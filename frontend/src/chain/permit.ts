/**
 * Deposits in one transaction: the wallet signs a permit (ERC-2612), and `multicall([permit, act])` uses it at once.
 *
 * Tokens without permits, or with a domain that cannot be told, and wallets that are contracts (whose signatures most
 * tokens do not take) allow and act in two transactions instead.
 */

import {
  type Abi,
  type Address,
  domainSeparator,
  encodeFunctionData,
  type PublicClient,
  parseAbi,
  parseSignature,
  type TypedDataDomain,
} from 'viem';
import type { Config } from 'wagmi';
import { signTypedData } from 'wagmi/actions';
import type { Network } from '@/api/types';
import { computeMarketAbi } from './abi';
import type { Call } from './transactions';

export type Permit = { domain: TypedDataDomain; owner: Address; amount: bigint };

const GOOD_FOR_SECONDS = 1800n;

const tokenAbi = parseAbi([
  'function name() view returns (string)',
  'function version() view returns (string)',
  'function DOMAIN_SEPARATOR() view returns (bytes32)',
  'function nonces(address owner) view returns (uint256)',
]);

const PERMIT = [
  { name: 'owner', type: 'address' },
  { name: 'spender', type: 'address' },
  { name: 'value', type: 'uint256' },
  { name: 'nonce', type: 'uint256' },
  { name: 'deadline', type: 'uint256' },
] as const;

/** The domain in which the token takes permits of `owner`; null when it takes none. */
export async function permitDomain(
  client: PublicClient,
  { chain, contracts }: Network,
  owner: Address,
): Promise<TypedDataDomain | null> {
  const token = { address: contracts.token, abi: tokenAbi } as const;
  if (await client.getCode({ address: owner })) return null;
  try {
    const [name, separator] = await Promise.all([
      client.readContract({ ...token, functionName: 'name' }),
      client.readContract({ ...token, functionName: 'DOMAIN_SEPARATOR' }),
      client.readContract({ ...token, functionName: 'nonces', args: [owner] }),
    ]);
    // OpenZeppelin's tokens say no version and mean 1; Circle's say theirs.
    const version = await client.readContract({ ...token, functionName: 'version' }).catch(() => '1');
    const domain = { name, version, chainId: chain.id, verifyingContract: contracts.token };
    return domainSeparator({ domain }) === separator ? domain : null;
  } catch {
    return null;
  }
}

/** `act` and the permit that it needs, as one call. Asks the wallet for the permit's signature. */
export async function withPermit(
  config: Config,
  client: PublicClient,
  network: Network,
  act: Call,
  { domain, owner, amount }: Permit,
): Promise<Call> {
  const nonce = await client.readContract({
    address: network.contracts.token,
    abi: tokenAbi,
    functionName: 'nonces',
    args: [owner],
  });
  const deadline = (await client.getBlock()).timestamp + GOOD_FOR_SECONDS;
  const message = { owner, spender: network.contracts.market, value: amount, nonce, deadline };
  const types = { Permit: PERMIT };
  const signature = await signTypedData(config, { domain, types, primaryType: 'Permit', message });
  const { r, s, yParity } = parseSignature(signature);
  const permit = encodeFunctionData({
    abi: computeMarketAbi as Abi,
    functionName: 'permit',
    args: [amount, deadline, 27 + yParity, r, s],
  });
  return { ...act, functionName: 'multicall', args: [[permit, encodeFunctionData(act)]] };
}
