import type { Address } from 'viem';
import { useSwitchChain } from 'wagmi';
import { useNetwork } from '@/api/network';
import { useTransaction, useWallet } from '@/chain/hooks';
import { STAGES, type Stage, type Transaction, transactions } from '@/chain/transactions';
import { Hash } from './basics';
import { Notice } from './Notice';
import { GetTestGas, GetTestTokens } from './TestFunds';

const NAMES: Record<Stage, string> = {
  preflight: 'Checked',
  wallet: 'In your wallet',
  sent: 'Sent',
  included: 'Included',
  final: 'Final',
  recorded: 'Recorded',
};

/** What happens now, in a sentence. Success is said at the end only. */
export function stageText({ stage, block, failure, title }: Transaction, wallet: string | null): string {
  if (failure) return `${title}: ${failure.title}.`;
  switch (stage) {
    case 'preflight':
      return 'Checking with the contract that this would succeed…';
    case 'wallet':
      return `Waiting for you to confirm in ${wallet ?? 'your wallet'}…`;
    case 'sent':
      return 'Sent. Waiting to be included in a block…';
    case 'included':
      return `Included in block ${block}. Waiting for it to be final…`;
    case 'final':
      return `Final in block ${block}. Waiting for HyperGPU to record it…`;
    case 'recorded':
      return `Final in block ${block} and recorded by HyperGPU.`;
  }
}

type Props = { id: string; retry?: () => void };

/** One transaction from preflight to record. Renders nothing before it starts. */
export function TransactionPanel({ id, retry }: Props) {
  const transaction = useTransaction(id);
  const wallet = useWallet();
  if (!transaction) return null;
  const { failure, hash, note } = transaction;
  return (
    <div className="tx" data-testid="transaction" data-stage={transaction.stage} data-failed={failure?.kind}>
      <div className="row spread">
        <h3>{transaction.title}</h3>
        {hash ? <TransactionHash hash={hash} /> : null}
      </div>
      <ol className="tx-steps">
        {STAGES.map((stage) => (
          <li key={stage} data-state={stepState(stage, transaction)}>
            {NAMES[stage]}
          </li>
        ))}
      </ol>
      <p className="small" role="status">
        {stageText(transaction, wallet.name)}
      </p>
      {note ? <p className="small muted">{note}</p> : null}
      {failure ? (
        <Notice
          tone={failure.kind === 'declined' ? 'warn' : 'bad'}
          title={failure.title}
          action={<Remedy transaction={transaction} retry={retry} />}
        >
          {failure.body}
        </Notice>
      ) : null}
    </div>
  );
}

function stepState(stage: Stage, { stage: now, failure }: Transaction): string {
  const at = STAGES.indexOf(stage);
  // Checking and confirming are acts under way; from `sent` on a stage is a fact, and the next one is awaited.
  const reached = STAGES.indexOf(now);
  const awaited = now === 'preflight' || now === 'wallet' ? reached : reached + 1;
  if (at < awaited) return 'done';
  if (at > awaited) return 'waiting';
  return failure ? 'failed' : 'active';
}

function Remedy({ transaction: { key, failure }, retry }: { transaction: Transaction; retry?: () => void }) {
  const wallet = useWallet();
  if (!failure) return null;
  return (
    <>
      {failure.remedy === 'switch' ? <SwitchChain /> : null}
      {failure.remedy === 'gas' && wallet.address ? <GetTestGas to={wallet.address} /> : null}
      {failure.remedy === 'tokens' && wallet.address ? (
        <GetTestTokens to={wallet.address as Address} />
      ) : null}
      {retry ? (
        <button type="button" className="button small" onClick={retry}>
          Try again
        </button>
      ) : null}
      <button type="button" className="link" onClick={() => transactions.forget(key)}>
        Dismiss
      </button>
    </>
  );
}

/** Switches the wallet to the settlement chain, and offers to add it where the wallet does not know it (EIP-3326, EIP-3085). */
export function SwitchChain() {
  const { chain } = useNetwork();
  const { mutate, isPending, error } = useSwitchChain();
  return (
    <>
      <button
        type="button"
        className="button small primary"
        disabled={isPending}
        onClick={() => mutate({ chainId: chain.id })}
      >
        Switch to {chain.name}
      </button>
      {error ? (
        <span className="small">The wallet did not switch. Choose chain {chain.id} in it by hand.</span>
      ) : null}
    </>
  );
}

export function TransactionHash({ hash }: { hash: string }) {
  const { chain } = useNetwork();
  if (!chain.explorer_url) return <Hash value={hash} label="transaction hash" head={6} tail={4} />;
  return (
    <a className="hash" href={`${chain.explorer_url}/tx/${hash}`} target="_blank" rel="noreferrer">
      {hash.slice(0, 8)}…{hash.slice(-6)}
    </a>
  );
}
