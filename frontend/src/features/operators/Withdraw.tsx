import { useState } from 'react';
import { type Address, isAddress } from 'viem';
import { useNetwork } from '@/api/network';
import type { Node } from '@/api/types';
import { markCredit, withdraw } from '@/chain/contracts';
import { useSend, useWallet } from '@/chain/hooks';
import { Amount } from '@/components/basics';
import { Field } from '@/components/Field';
import { Notice } from '@/components/Notice';
import { SwitchChain, TransactionPanel } from '@/components/TransactionPanel';
import { duration } from '@/lib/format';
import { formatUnits, parseUnits } from '@/lib/money';
import { type Standing, useNodeMoney, useStanding, waiting } from './money';

/** Takes what is free of the earned credit out of the contract, to any address; says why the rest has to wait. */
export function Withdraw({ node }: { node: Node }) {
  const network = useNetwork();
  const wallet = useWallet();
  const send = useSend();
  const [typed, setTyped] = useState<string | null>(null);
  const [to, setTo] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const { decimals, symbol } = network.token;
  const money = useNodeMoney(node.id);
  const terms = useStanding(node.operator as Address);
  const free = money?.withdrawable ?? 0n;
  const held = money ? waiting(money) : 0n;
  const amount = typed === null ? free : parseUnits(typed, decimals);
  const recipient = (to ?? wallet.address ?? '').trim();
  const key = `withdraw ${node.id}`;
  const valid = amount !== null && amount > 0n && amount <= free && isAddress(recipient, { strict: false });
  const run = async () => {
    if (!valid) return;
    setBusy(true);
    const title = `Withdraw ${formatUnits(amount, decimals)} ${symbol}`;
    await send({ key, title, call: withdraw(network, node.id, amount, recipient as `0x${string}`) });
    setBusy(false);
  };
  if (free === 0n && typed === null) {
    return (
      <div className="stack">
        {held > 0n ? null : (
          <p className="small muted">
            {money === null
              ? 'Asking the contract…'
              : 'Nothing to withdraw yet: credit grows with each settled round.'}
          </p>
        )}
        <Waiting held={held} standing={terms} />
        {held > 0n ? <MarkCredit node={node} /> : null}
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
          value={typed ?? formatUnits(free, decimals)}
          onChange={(event) => setTyped(event.target.value)}
          hint={
            <>
              of <Amount base={free} /> withdrawable, <Amount base={money?.credit ?? 0n} /> credit
            </>
          }
          error={
            amount === null
              ? 'This is not an amount.'
              : amount > free
                ? 'More than can be withdrawn now.'
                : undefined
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
      <Waiting held={held} standing={terms} />
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

/** Why not all of the credit can be withdrawn. */
function Waiting({ held, standing }: { held: bigint; standing: Standing | null }) {
  if (held === 0n) return null;
  return (
    <p className="small muted" data-testid="withdraw-waiting">
      <Amount base={held} /> {held === 1n ? 'is' : 'are'} in the challenge window: a settled receipt may be
      disputed
      {standing ? ` for ${duration(Number(standing.challengeWindow))}` : ' for a while'}. It is free when a
      mark that holds it is that old, or as soon as the requester accepts the round
      {standing
        ? `; before, up to ${Number(standing.instantShare) / 100} % of your stake can be withdrawn early, all nodes together`
        : ''}
      . Each withdrawal makes a mark.
    </p>
  );
}

/** Starts the clock of what is earned until now, where there is nothing to withdraw that would do so. */
function MarkCredit({ node }: { node: Node }) {
  const network = useNetwork();
  const send = useSend();
  const key = `mark ${node.id}`;
  const run = () => send({ key, title: 'Mark the credit', call: markCredit(network, [node.id]) });
  return (
    <>
      <div>
        <button type="button" className="button small" onClick={run} data-testid="mark-submit">
          Mark it now
        </button>
      </div>
      <TransactionPanel id={key} retry={run} />
    </>
  );
}
