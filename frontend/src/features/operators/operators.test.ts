import type { Address, Hex } from 'viem';
import { privateKeyToAccount } from 'viem/accounts';
import { describe, expect, it } from 'vitest';
import { domainOf, TYPES } from '@/chain/typedData';
import { bid, network, node, payment } from '@/test/fixtures';
import vectors from '../../../../tests/vectors/protocol.json';
import { rateOf } from './BidForm';
import { evidenceOf } from './evidence';
import { missingStake, parseRegistration, provesPossession, registrationFromLink } from './registration';

const { wallet, hot } = vectors.keys;
const operator = privateKeyToAccount(wallet as Hex).address;
const hotKey = privateKeyToAccount(hot as Hex);
const NOW = 1_790_000_000_000;

async function link(change: Record<string, string> = {}) {
  const message = { operator, hotKey: hotKey.address, expiresAt: 1_800_000_000n, nonce: 0n };
  const types = { Delegation: TYPES.Delegation };
  const possession = await hotKey.signTypedData({
    domain: domainOf(network),
    types,
    primaryType: 'Delegation',
    message,
  });
  return new URLSearchParams({ hot_key: hotKey.address, possession, expires_at: '1800000000', ...change });
}

describe('a registration', () => {
  it('comes from the link that the agent printed', async () => {
    const { value, errors } = parseRegistration(registrationFromLink(await link()), NOW);
    expect(errors).toEqual({});
    expect(value).toMatchObject({ hotKey: hotKey.address, expiresAt: 1_800_000_000n });
    expect(value && (await provesPossession(network, value, operator, 0n))).toBe(true);
  });

  it('is refused before any gas is spent when the proof is for another wallet, nonce or chain', async () => {
    const { value } = parseRegistration(registrationFromLink(await link()), NOW);
    if (!value) throw new Error('no registration');
    const stranger = '0x018Db83cfB01f3db1Ee02a84d7c0e202610ff632' as Address;
    expect(await provesPossession(network, value, stranger, 0n)).toBe(false);
    expect(await provesPossession(network, value, operator, 1n)).toBe(false);
    expect(
      await provesPossession({ ...network, chain: { ...network.chain, id: 1 } }, value, operator, 0n),
    ).toBe(false);
  });

  it.each([
    ['hot_key', '0x1234', 'hotKey'],
    ['possession', '0x1234', 'possession'],
    ['expires_at', 'tomorrow', 'expiresAt'],
    ['expires_at', '1000', 'expiresAt'],
  ])('names a wrong %s', async (name, wrong, field) => {
    const { value, errors } = parseRegistration(registrationFromLink(await link({ [name]: wrong })), NOW);
    expect([value, Object.keys(errors)]).toEqual([null, [field]]);
  });

  it('is silent about what is not typed yet', () => {
    expect(parseRegistration(registrationFromLink(new URLSearchParams()), NOW)).toEqual({
      value: null,
      errors: {},
    });
  });

  it('needs the stake that is missing for one more node', () => {
    expect([missingStake(100n, 0n, 0), missingStake(100n, 100n, 1), missingStake(100n, 250n, 1)]).toEqual([
      100n,
      100n,
      0n,
    ]);
  });
});

describe('a bid', () => {
  it.each([
    ['5', 5n],
    ['0,5', null],
    ['0', null],
    ['many', null],
    ['12.000000', 12n],
  ])('of %s tokens per million samples is %s base units per sample', (price, rate) => {
    expect(rateOf(price, 6)).toBe(rate);
  });
});

describe('the evidence that a node earns', () => {
  const facts = { network, now: Date.parse('2026-11-21T12:00:10Z'), bids: [bid(1)], payments: [] };
  const broken = (change: Parameters<typeof node>[1], more: Partial<Parameters<typeof evidenceOf>[0]> = {}) =>
    evidenceOf({ ...facts, node: node(1, change), ...more }).find((item) => !item.ok && item.fix)?.text;

  it('is whole when everything stands', () => {
    const paid = payment(0, 1, { state: 'final', final_at: '2026-11-21T12:00:08Z' });
    expect(evidenceOf({ ...facts, node: node(1), payments: [paid] }).every((item) => item.ok)).toBe(true);
  });

  it('names the first broken link with what to do', () => {
    expect(broken({ stake: '1' })).toBe('Stake covers it');
    expect(broken({ state: 'registered', last_seen: null, working_on: null })).toBe(
      'Its agent has not reported yet',
    );
    expect(broken({ state: 'offline' })).toMatch(/silent for 10/);
    expect(broken({}, { bids: [] })).toBe('No bid stands');
    const suspension = { until: '2026-11-21T13:00:10Z', reason: 'Audit 7: it gave something else.' };
    expect(broken({ suspension })).toMatch(/Left out of rounds for another 1.h/);
    expect(broken({ suspension: { ...suspension, until: '2026-11-21T12:00:00Z' } })).toBe('No payment yet');
    expect(broken({}, { bids: [bid(1, { expires_at: '2026-11-21T11:00:00Z' })] })).toBe('No bid stands');
  });
});
