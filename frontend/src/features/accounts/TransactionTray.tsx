import { useEffect, useRef, useState } from 'react';
import { useTransactions } from '@/chain/hooks';
import { isPending } from '@/chain/transactions';
import { TransactionPanel } from '@/components/TransactionPanel';
import { plural } from '@/lib/format';

/** Transactions that are on their way, on every page, across reloads. */
export function TransactionTray() {
  const all = [...useTransactions().values()].sort((a, b) => b.startedAt - a.startedAt);
  const pending = all.filter(isPending).length;
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const outside = (event: PointerEvent) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);
  if (pending === 0 && !open) return null;
  return (
    <div className="menu" ref={box}>
      <button
        type="button"
        className="button"
        aria-expanded={open}
        onClick={() => setOpen(!open)}
        data-testid="tray"
      >
        <span className="chip info beat">{plural(pending, 'transaction')}</span>
      </button>
      {open ? (
        <div className="menu-list wide">
          {all.slice(0, 4).map((transaction) => (
            <TransactionPanel key={transaction.key} id={transaction.key} />
          ))}
        </div>
      ) : null}
    </div>
  );
}
