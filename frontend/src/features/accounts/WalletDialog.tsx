import { createContext, type ReactNode, use, useMemo, useState } from 'react';
import { type Connector, useConnect, useConnection, useConnectors } from 'wagmi';
import { useNetwork } from '@/api/network';
import { describeFailure } from '@/chain/failures';
import { Dialog } from '@/components/Dialog';
import { WalletIcon } from '@/components/icons';
import { Notice } from '@/components/Notice';

const WalletDialogContext = createContext<() => void>(() => {});

/** Opens the list of wallets. */
export const useWalletDialog = () => use(WalletDialogContext);

export function WalletDialogProvider({ children }: { children: ReactNode }) {
  const [open, setOpen] = useState(false);
  const show = useMemo(() => () => setOpen(true), []);
  return (
    <WalletDialogContext value={show}>
      {children}
      <Dialog open={open} title="Connect a wallet" close={() => setOpen(false)}>
        <WalletList done={() => setOpen(false)} />
      </Dialog>
    </WalletDialogContext>
  );
}

/** Wallets that announced themselves (EIP-6963); the nameless injected one only when none did. */
export function announcedWallets(connectors: readonly Connector[], injected: boolean): readonly Connector[] {
  const announced = connectors.filter((connector) => connector.id !== 'injected');
  return announced.length || !injected ? announced : connectors;
}

function WalletList({ done }: { done: () => void }) {
  const { chain } = useNetwork();
  const connectors = useConnectors();
  const { status } = useConnection();
  const { mutate, error, isPending, variables } = useConnect();
  const wallets = announcedWallets(connectors, 'ethereum' in globalThis);
  if (wallets.length === 0) {
    return (
      <p>
        No wallet announced itself to this page. Install one in this browser, such as MetaMask or Rabby, and
        reload. Everything on HyperGPU can be read without a wallet.
      </p>
    );
  }
  const failure = error ? describeFailure(error, { chain: chain.name }) : null;
  return (
    <>
      <p className="muted small">
        Connecting shows this page your address. It signs nothing and moves no funds.
      </p>
      <ul className="wallets">
        {wallets.map((wallet) => (
          <li key={wallet.uid}>
            <button
              type="button"
              className="button"
              data-testid={`wallet-${wallet.id}`}
              disabled={isPending || status === 'reconnecting'}
              onClick={() => mutate({ connector: wallet }, { onSuccess: done })}
            >
              {wallet.icon ? (
                <img src={wallet.icon.trim()} alt="" />
              ) : (
                <span className="glyph">
                  <WalletIcon />
                </span>
              )}
              {wallet.name}
              {isPending && variables?.connector === wallet ? (
                <span className="muted small">waiting for the wallet…</span>
              ) : null}
            </button>
          </li>
        ))}
      </ul>
      {failure ? (
        <Notice tone={failure.kind === 'declined' ? 'warn' : 'bad'} title={failure.title}>
          {failure.body}
        </Notice>
      ) : null}
    </>
  );
}
