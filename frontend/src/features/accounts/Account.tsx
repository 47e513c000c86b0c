import { useEffect, useRef, useState } from 'react';
import { Link } from 'react-router';
import { useDisconnect, useWatchAsset } from 'wagmi';
import { ApiError } from '@/api/client';
import { useNetwork } from '@/api/network';
import { useSession, useSignOut } from '@/api/session';
import { describeFailure } from '@/chain/failures';
import { useFunds, useWallet } from '@/chain/hooks';
import { Address, Amount } from '@/components/basics';
import { WalletIcon } from '@/components/icons';
import { Notice } from '@/components/Notice';
import { GetTestTokens } from '@/components/TestFunds';
import { SwitchChain, TransactionPanel } from '@/components/TransactionPanel';
import { short } from '@/lib/format';
import { useSignIn } from './signIn';
import { useWalletDialog } from './WalletDialog';

/** The end of the header: connect, sign in, or the account's menu. Three separate consents. */
export function Account() {
  const wallet = useWallet();
  const session = useSession();
  const show = useWalletDialog();
  useEndForeignSession();
  if (wallet.address) {
    return (
      <>
        {session ? null : <SignInButton testId="sign-in" />}
        <AccountMenu session={session ?? null} />
      </>
    );
  }
  return (
    <>
      {session ? <AccountMenu session={session} /> : null}
      <button
        type="button"
        className="button"
        data-testid="connect-wallet"
        disabled={!wallet.settled}
        onClick={show}
      >
        <WalletIcon />
        <span>
          Connect<span className="roomy"> wallet</span>
        </span>
      </button>
    </>
  );
}

/** A session belongs to one address: when the wallet changes to another, it ends. */
function useEndForeignSession(): void {
  const { address } = useWallet();
  const session = useSession();
  const { mutate, isPending } = useSignOut();
  const foreign = Boolean(address && session && address.toLowerCase() !== session.toLowerCase());
  useEffect(() => {
    if (foreign && !isPending) mutate();
  }, [foreign, isPending, mutate]);
}

function SignInButton({ testId, wide }: { testId: string; wide?: boolean }) {
  const wallet = useWallet();
  const { chain } = useNetwork();
  const { mutate, isPending, error, reset } = useSignIn();
  if (!wallet.address) return null;
  const address = wallet.address;
  const told =
    error instanceof ApiError
      ? { title: 'Not signed in', body: error.message }
      : error
        ? describeFailure(error, { chain: chain.name })
        : null;
  return (
    <div className="menu">
      <button
        type="button"
        className={wide ? 'button primary wide' : 'button primary'}
        data-testid={testId}
        disabled={isPending}
        onClick={() => mutate(address)}
      >
        {isPending ? 'Confirm in your wallet…' : 'Sign in'}
      </button>
      {told ? (
        <div className="menu-list">
          <Notice
            tone="warn"
            title={told.title}
            action={
              <button type="button" className="link" onClick={reset}>
                Dismiss
              </button>
            }
          >
            {told.body}
          </Notice>
        </div>
      ) : null}
    </div>
  );
}

function AccountMenu({ session }: { session: string | null }) {
  const wallet = useWallet();
  const { chain } = useNetwork();
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const out = useSignOut();
  const disconnect = useDisconnect();
  const show = useWalletDialog();
  const address = session ?? wallet.address;
  useEffect(() => {
    if (!open) return;
    const outside = (event: Event) => {
      if (
        event instanceof KeyboardEvent ? event.key === 'Escape' : !box.current?.contains(event.target as Node)
      )
        setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    document.addEventListener('keydown', outside);
    return () => {
      document.removeEventListener('pointerdown', outside);
      document.removeEventListener('keydown', outside);
    };
  }, [open]);
  if (!address) return null;
  const leave = () => {
    if (session) out.mutate();
    disconnect.mutate({});
    setOpen(false);
  };
  return (
    <div className="menu" ref={box}>
      <button
        type="button"
        className="button"
        aria-expanded={open}
        aria-haspopup="true"
        data-testid={session ? 'session-address' : 'wallet-address'}
        data-address={address}
        onClick={() => setOpen(!open)}
      >
        <Address value={address} href={<span className="hash">{short(address)}</span>} copy={false} />
      </button>
      {open ? (
        <div className="menu-list">
          <div className="row spread">
            <Address value={address} />
            <span className="small muted">{session ? 'signed in' : 'not signed in'}</span>
          </div>
          {wallet.address ? <Funds address={wallet.address} /> : null}
          {wallet.address && !wallet.rightChain ? (
            <Notice tone="warn" title="Your wallet is on another chain" action={<SwitchChain />}>
              HyperGPU settles on {chain.name} here.
            </Notice>
          ) : null}
          <div className="row">
            <Link to={`/operators/${address}`} onClick={() => setOpen(false)}>
              My nodes and earnings
            </Link>
          </div>
          <div className="row">
            {wallet.address ? null : (
              <button type="button" className="button small" onClick={show}>
                Connect wallet
              </button>
            )}
            <button type="button" className="button small" onClick={leave} data-testid="sign-out">
              {session ? 'Sign out' : 'Disconnect'}
            </button>
          </div>
        </div>
      ) : null}
    </div>
  );
}

/** Wallets do not list a contract's events; a token that they watch shows every withdrawal by itself (EIP-747). */
function WatchToken() {
  const { contracts, token } = useNetwork();
  const { mutate, isPending } = useWatchAsset();
  const options = { address: contracts.token, symbol: token.symbol, decimals: token.decimals };
  return (
    <button
      type="button"
      className="link small"
      disabled={isPending}
      onClick={() => mutate({ type: 'ERC20', options })}
    >
      Show {token.symbol} in the wallet
    </button>
  );
}

function Funds({ address }: { address: `0x${string}` }) {
  const { balance } = useFunds(address);
  return (
    <>
      <div className="row spread">
        <span className="muted">Balance</span>
        {balance === undefined ? '–' : <Amount base={balance} />}
      </div>
      <div className="row">
        <GetTestTokens to={address} />
        <WatchToken />
      </div>
      <TransactionPanel id={`mint ${address}`} />
    </>
  );
}

/** In place of an act that needs a wallet (and a session): what is missing, as a button; then `children`. */
export function Gate({ need, children }: { need: 'wallet' | 'session'; children: React.ReactNode }) {
  const wallet = useWallet();
  const session = useSession();
  const show = useWalletDialog();
  if (!wallet.address) {
    return (
      <button
        type="button"
        className="button primary wide"
        data-testid="connect-wallet-here"
        disabled={!wallet.settled}
        onClick={show}
      >
        <WalletIcon />
        Connect a wallet to go on
      </button>
    );
  }
  if (need === 'session' && !session) {
    return (
      <div className="stack tight">
        <SignInButton testId="sign-in-here" wide />
        <p className="small muted">Signing in is a signature. It costs nothing and moves no funds.</p>
      </div>
    );
  }
  return children;
}
