import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useSearchParams } from 'react-router';
import type { Address } from 'viem';
import { useReadContracts } from 'wagmi';
import { useNetwork } from '@/api/network';
import { computeMarketAbi } from '@/chain/abi';
import { registerNode } from '@/chain/contracts';
import { useTransaction } from '@/chain/hooks';
import { Amount } from '@/components/basics';
import { Field } from '@/components/Field';
import { Notice } from '@/components/Notice';
import { PaidAction } from '@/components/PaidAction';
import { TransactionPanel } from '@/components/TransactionPanel';
import { localTime } from '@/lib/format';
import { formatUnits, parseUnits } from '@/lib/money';
import {
  missingStake,
  parseRegistration,
  provesPossession,
  type Registration,
  registrationFromLink,
} from './registration';

/** The stake and the hot key of one node: filled in from the link that the agent printed. */
export function RegisterNode({ operator }: { operator: Address }) {
  const network = useNetwork();
  const [query] = useSearchParams();
  const [form, setForm] = useState(() => registrationFromLink(query));
  const [typedStake, setTypedStake] = useState<string | null>(null);
  const { value, errors } = parseRegistration(form, Date.now());
  const chain = useStanding(operator, value?.hotKey ?? null);
  const proof = useProof(operator, value, chain?.nonce);
  const { decimals, symbol } = network.token;
  const least = missingStake(BigInt(network.min_stake), chain?.stake ?? 0n, chain?.activeNodes ?? 0);
  const stake = typedStake === null ? least : parseUnits(typedStake, decimals);
  const key = `register ${form.hotKey.trim().toLowerCase()}`;
  const started = useTransaction(key);
  const set = (field: keyof typeof form) => (event: { target: { value: string } }) =>
    setForm({ ...form, [field]: event.target.value });
  const taken = chain?.nodeOfKey ? `This hot key already belongs to node ${chain.nodeOfKey}.` : undefined;

  return (
    <div className="stack" data-testid="register-node">
      <div className="fields">
        <Field
          whole
          label="Hot key"
          hint="The address of the key on the GPU machine. It signs receipts; it cannot move your stake or your earnings."
          placeholder="0x…"
          className="input mono"
          value={form.hotKey}
          onChange={set('hotKey')}
          error={errors.hotKey ?? (started ? undefined : taken)}
          data-testid="register-hot-key"
        />
        <Field
          whole
          label="Proof of possession"
          hint="The hot key's signature that it wants to work for your wallet."
          placeholder="0x…"
          className="input mono"
          value={form.possession}
          onChange={set('possession')}
          error={errors.possession}
          data-testid="register-possession"
        />
        <Field
          label="Hot key is valid until"
          unit="unix seconds"
          inputMode="numeric"
          hint={value ? localTime(Number(value.expiresAt) * 1000) : 'As the agent printed it.'}
          value={form.expiresAt}
          onChange={set('expiresAt')}
          error={errors.expiresAt}
          data-testid="register-expires-at"
        />
        <Field
          label="Stake to add"
          unit={symbol}
          inputMode="decimal"
          hint={
            <>
              <Amount base={network.min_stake} /> for each active node; staked so far:{' '}
              <Amount base={chain?.stake ?? 0n} />.
            </>
          }
          value={typedStake ?? formatUnits(least, decimals)}
          onChange={(event) => setTypedStake(event.target.value)}
          error={
            stake === null
              ? 'This is not an amount.'
              : stake < least
                ? `At least ${formatUnits(least, decimals)} is missing.`
                : undefined
          }
          data-testid="register-stake"
        />
      </div>
      {value && proof === false && !started ? (
        <Notice tone="bad" title="This proof is not for your wallet">
          It was made by another key, for another wallet, or for another validity. On the GPU machine run the
          delegate command above again; it names your wallet.
        </Notice>
      ) : null}
      <p className="small muted">
        Your stake stays yours. It is locked while the node is active; to take it back you retire the node,
        ask for it, and wait for the unbonding time. The node's earnings are yours to withdraw at any time.
      </p>
      {value && stake !== null ? (
        <PaidAction
          id={key}
          amount={stake}
          title={
            stake > 0n ? `Stake ${formatUnits(stake, decimals)} ${symbol} and register` : 'Register the node'
          }
          call={registerNode(network, { ...value, stake })}
          disabled={proof !== true || stake < least || taken !== undefined}
          testId="register-submit"
        />
      ) : (
        <>
          <button type="button" className="button primary wide" disabled data-testid="register-submit">
            Fill in what the agent printed
          </button>
          <TransactionPanel id={key} />
        </>
      )}
    </div>
  );
}

type Standing = { stake: bigint; activeNodes: number; nonce: bigint; nodeOfKey: number };

/** What the contract knows of the operator and the key, read from the chain. */
function useStanding(operator: Address, hotKey: Address | null): Standing | null {
  const { chain, contracts } = useNetwork();
  const market = { address: contracts.market, abi: computeMarketAbi, chainId: chain.id } as const;
  const key = hotKey ?? operator;
  const { data } = useReadContracts({
    allowFailure: false,
    contracts: [
      { ...market, functionName: 'getOperator', args: [operator] },
      { ...market, functionName: 'delegationNonce', args: [key] },
      { ...market, functionName: 'nodeOfKey', args: [key] },
    ],
    query: { refetchInterval: 5_000 },
  });
  if (!data) return null;
  const [state, nonce, nodeOfKey] = data;
  return { stake: state.stake, activeNodes: state.activeNodes, nonce, nodeOfKey: hotKey ? nodeOfKey : 0 };
}

function useProof(
  operator: Address,
  value: Registration | null,
  nonce: bigint | undefined,
): boolean | undefined {
  const network = useNetwork();
  const { data } = useQuery({
    queryKey: [
      'possession',
      operator,
      value?.hotKey,
      value?.possession,
      String(value?.expiresAt),
      String(nonce),
    ],
    queryFn: () => provesPossession(network, value as Registration, operator, nonce as bigint),
    enabled: value !== null && nonce !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
  return data;
}
