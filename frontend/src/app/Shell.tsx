import { type ReactNode, useEffect, useRef } from 'react';
import { Link, NavLink, useLocation } from 'react-router';
import { useNetwork } from '@/api/network';
import { Chip } from '@/components/basics';
import { Logo } from '@/components/icons';
import { Account } from '@/features/accounts/Account';
import { TransactionTray } from '@/features/accounts/TransactionTray';
import { Freshness } from './Freshness';
import { Troubles } from './Troubles';

export function Shell({ children }: { children: ReactNode }) {
  const main = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const first = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page starts at its top, and is what focus goes to
  useEffect(() => {
    if (!first.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [pathname]);
  return (
    <>
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <Ribbon />
      <header className="header">
        <div className="header-row">
          <Link to="/" className="brand">
            <Logo /> HyperGPU
          </Link>
          <nav className="nav" aria-label="Pages">
            <NavLink to="/" end>
              Jobs
            </NavLink>
            <NavLink to="/operators">Operators</NavLink>
            <NavLink to="/new">Train a model</NavLink>
            <NavLink to="/operate">Earn with your GPU</NavLink>
          </nav>
          <div className="header-end">
            <Freshness />
            <TransactionTray />
            <Account />
          </div>
        </div>
      </header>
      <main id="main" className="main" ref={main} tabIndex={-1}>
        <Troubles />
        {children}
      </main>
      <Footer />
    </>
  );
}

/** Anything that is not real says so on every page. */
function Ribbon() {
  const { chain, emulated } = useNetwork();
  if (!chain.test && !emulated) return null;
  return (
    <aside className="ribbon" aria-label="What is not real here">
      {chain.test ? 'Test network: tokens have no value' : null}
      {chain.test && emulated ? ' · ' : null}
      {emulated ? `Network conditions are emulated: ${emulated}` : null}
    </aside>
  );
}

function Footer() {
  const { version, chain } = useNetwork();
  return (
    <footer className="footer">
      <div>
        <span>HyperGPU {version}</span>
        <Chip dot={false} title={`Chain id ${chain.id}`}>
          {chain.name} · {chain.id}
        </Chip>
        <a href="/api/docs/">API</a>
        <a href="/api/v1/status">Server status</a>
        <span>Everything here can be read without a wallet, and recomputed from the chain.</span>
      </div>
    </footer>
  );
}
