import { useState } from 'react';
import { useNetwork } from '@/api/network';
import { approve } from '@/chain/contracts';
import { noTokens } from '@/chain/failures';
import { useFunds, usePermitDomain, useSend, useTransaction, useWallet } from '@/chain/hooks';
import { type Call, isPending } from '@/chain/transactions';
import { formatUnits } from '@/lib/money';
import { Notice } from './Notice';
import { GetTestTokens } from './TestFunds';
import { SwitchChain, TransactionPanel } from './TransactionPanel';

type Props = {
  /** Names the two transactions: `allow <id>` and `<id>`. */
  id: string;
  /** Token base units that the act takes. */
  amount: bigint;
  /** What it does, as the button and the transaction say it. */
  title: string;
  call: Call;
  testId: string;
  disabled?: boolean;
};

/**
 * An act that takes tokens: a signed permit and the act in one transaction where the token takes permits, otherwise
 * allow exactly the amount, then act. Where it stands is read from the chain (what is allowed), never from a promise,
 * so a reload or a lost answer in between does no harm.
 */
export function PaidAction({ id, amount, title, call, testId, disabled }: Props) {
  const network = useNetwork();
  const wallet = useWallet();
  const funds = useFunds(wallet.address);
  const domain = usePermitDomain(wallet.address);
  const send = useSend();
  const [busy, setBusy] = useState(false);
  const allowing = useTransaction(`allow ${id}`);
  const acting = useTransaction(id);
  const minting = useTransaction(`mint ${wallet.address}`);
  if (!wallet.address) return null;

  const money = (value: bigint) => `${formatUnits(value, network.token.decimals)} ${network.token.symbol}`;
  const short = funds.balance !== undefined && funds.balance < amount;
  const allowed = amount === 0n || (funds.allowance !== undefined && funds.allowance >= amount);
  const pending = busy || (acting !== undefined && isPending(acting));

  const run = async () => {
    setBusy(true);
    try {
      const { data } = await funds.refetch();
      const act = { key: id, title, call };
      const allow = {
        key: `allow ${id}`,
        title: `Allow exactly ${money(amount)}`,
        call: approve(network, amount),
      };
      if (amount === 0n || (data?.[1] ?? 0n) >= amount) await send(act);
      else if (domain && wallet.address)
        await send({ ...act, permit: { domain, owner: wallet.address, amount } });
      else if (await send(allow)) await send(act);
      await funds.refetch();
    } finally {
      setBusy(false);
    }
  };

  return (
    <div className="stack">
      {amount > 0n ? (
        <ol className="small muted">
          <li>
            {domain ? 'Sign that the market contract may take' : 'Allow the market contract to take'} exactly{' '}
            {money(amount)}
            {allowed ? ' (done)' : domain ? ', without gas' : ''}
          </li>
          <li>{title}</li>
        </ol>
      ) : null}
      {short ? (
        <Notice
          tone="warn"
          title={noTokens('', '').title}
          action={<GetTestTokens to={wallet.address} most={whole(amount, network.token.decimals)} />}
        >
          {noTokens(money(amount), money(funds.balance ?? 0n)).body}
        </Notice>
      ) : null}
      {wallet.rightChain ? null : (
        <Notice tone="warn" title="Your wallet is on another chain" action={<SwitchChain />}>
          HyperGPU settles on {network.chain.name} here.
        </Notice>
      )}
      <button
        type="button"
        className="button primary wide"
        data-testid={testId}
        disabled={
          disabled ||
          pending ||
          short ||
          !wallet.rightChain ||
          funds.balance === undefined ||
          domain === undefined
        }
        onClick={run}
      >
        {pending ? 'In progress…' : title}
      </button>
      {allowing && !(acting && allowing.stage === 'recorded') ? (
        <TransactionPanel id={`allow ${id}`} retry={run} />
      ) : null}
      <TransactionPanel id={id} retry={run} />
      {minting && (isPending(minting) || minting.failure) ? <TransactionPanel id={minting.key} /> : null}
    </div>
  );
}

/** Whole tokens that cover `amount`, and a thousand at least. */
function whole(amount: bigint, decimals: number): bigint {
  const unit = 10n ** BigInt(decimals);
  const needed = (amount + unit - 1n) / unit;
  return needed > 1_000n ? needed : 1_000n;
}
