import { useState } from 'react';
import type { Address } from 'viem';
import { usePublicClient } from 'wagmi';
import { useNetwork } from '@/api/network';
import { mint } from '@/chain/contracts';
import { useFunds, useSend } from '@/chain/hooks';
import { formatUnits } from '@/lib/money';

const LOCAL_CHAIN = 31337;

/** On a test network anybody may mint the test token to themselves. */
export function GetTestTokens({ to, most = 1_000n }: { to: Address; most?: bigint }) {
  const network = useNetwork();
  const send = useSend();
  const funds = useFunds(to);
  const [busy, setBusy] = useState(false);
  if (!network.chain.test) return null;
  const amount = most * 10n ** BigInt(network.token.decimals);
  const get = async () => {
    setBusy(true);
    const title = `Get ${formatUnits(amount, network.token.decimals)} ${network.token.symbol}`;
    await send({ key: `mint ${to}`, title, call: mint(network, to, amount) });
    await funds.refetch();
    setBusy(false);
  };
  return (
    <button
      type="button"
      className="button small"
      disabled={busy}
      onClick={get}
      data-testid="get-test-tokens"
    >
      {busy ? 'Getting test tokens…' : `Get ${most} test ${network.token.symbol}`}
    </button>
  );
}

/** The local development chain gives gas to whoever asks its node; public test networks have faucets of their own. */
export function GetTestGas({ to }: { to: Address }) {
  const { chain } = useNetwork();
  const client = usePublicClient({ chainId: chain.id });
  const [state, setState] = useState<'idle' | 'busy' | 'done' | 'failed'>('idle');
  if (chain.id !== LOCAL_CHAIN || !client) return null;
  const get = () => {
    setState('busy');
    const request = { method: 'anvil_setBalance', params: [to, '0x8ac7230489e80000'] };
    (client.request as (request: unknown) => Promise<unknown>)(request).then(
      () => setState('done'),
      () => setState('failed'),
    );
  };
  if (state === 'done') return <span className="small">You have test gas now: try again.</span>;
  return (
    <button
      type="button"
      className="button small"
      disabled={state === 'busy'}
      onClick={get}
      data-testid="get-test-gas"
    >
      {state === 'failed' ? 'This chain gives no gas' : 'Get test gas'}
    </button>
  );
}
