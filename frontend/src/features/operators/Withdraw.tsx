import { useState } from 'react';
import { isAddress } from 'viem';
import { useNetwork } from '@/api/network';
import type { Node } from '@/api/types';
import { withdraw } from '@/chain/contracts';
import { useSend, useWallet } from '@/chain/hooks';
import { Amount } from '@/components/basics';
import { Field } from '@/components/Field';
import { Notice } from '@/components/Notice';
import { SwitchChain, TransactionPanel } from '@/components/TransactionPanel';
import { formatUnits, parseUnits } from '@/lib/money';

/** Takes earned credit out of the contract, to any address. */
export function Withdraw({ node }: { node: Node }) {
  const network = useNetwork();
  const wallet = useWallet();
  const send = useSend();
  const [typed, setTyped] = useState<string | null>(null);
  const [to, setTo] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const { decimals, symbol } = network.token;
  const credit = BigInt(node.credit);
  const amount = typed === null ? credit : parseUnits(typed, decimals);
  const recipient = (to ?? wallet.address ?? '').trim();
  const key = `withdraw ${node.id}`;
  const valid = amount !== null && amount > 0n && amount <= credit && isAddress(recipient, { strict: false });
  const run = async () => {
    if (!valid) return;
    setBusy(true);
    const title = `Withdraw ${formatUnits(amount, decimals)} ${symbol}`;
    await send({ key, title, call: withdraw(network, node.id, amount, recipient as `0x${string}`) });
    setBusy(false);
  };
  if (credit === 0n && typed === null) {
    return (
      <div className="stack">
        <p className="small muted">Nothing to withdraw yet: credit grows with each settled round.</p>
        <TransactionPanel id={key} />
      </div>
    );
  }
  return (
    <div className="stack">
      <div className="fields">
        <Field
          label="Amount"
          unit={symbol}
          inputMode="decimal"
          value={typed ?? formatUnits(credit, decimals)}
          onChange={(event) => setTyped(event.target.value)}
          hint={
            <>
              of <Amount base={credit} /> credit
            </>
          }
          error={
            amount === null ? 'This is not an amount.' : amount > credit ? 'More than the credit.' : undefined
          }
          data-testid="withdraw-amount"
        />
        <Field
          whole
          label="To"
          className="input mono"
          value={recipient}
          onChange={(event) => setTo(event.target.value)}
          error={
            recipient && !isAddress(recipient, { strict: false }) ? 'This is not an address.' : undefined
          }
          data-testid="withdraw-to"
        />
      </div>
      {wallet.rightChain ? null : (
        <Notice tone="warn" title="Your wallet is on another chain" action={<SwitchChain />}>
          HyperGPU settles on {network.chain.name} here.
        </Notice>
      )}
      <button
        type="button"
        className="button primary"
        disabled={!valid || busy || !wallet.rightChain}
        onClick={run}
        data-testid="withdraw-submit"
      >
        {busy ? 'In progress…' : 'Withdraw'}
      </button>
      <TransactionPanel id={key} retry={run} />
    </div>
  );
}
