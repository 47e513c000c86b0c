/** Small pieces that every page uses: chips, addresses, ages, numbers, amounts, bars. */

import { type CSSProperties, type ReactNode, useState } from 'react';
import { useNetwork } from '@/api/network';
import type { Payment } from '@/api/types';
import { age, localTime, short, utcTime } from '@/lib/format';
import { formatUnits } from '@/lib/money';
import { useNow } from '@/lib/useNow';
import { CheckIcon, CopyIcon } from './icons';

export type Tone = 'plain' | 'info' | 'ok' | 'warn' | 'bad';

type ChipProps = {
  tone?: Tone;
  beat?: boolean;
  hollow?: boolean;
  dot?: boolean;
  title?: string;
  children: ReactNode;
};

export function Chip({ tone = 'plain', beat, hollow, dot = true, title, children }: ChipProps) {
  const names = [
    'chip',
    tone === 'plain' ? '' : tone,
    beat ? 'beat' : '',
    hollow ? 'hollow' : '',
    dot ? '' : 'plain',
  ];
  return (
    <span className={names.filter(Boolean).join(' ')} title={title}>
      {children}
    </span>
  );
}

/** How long ago, with the exact local and UTC time for those who ask. */
export function Age({ at, prefix = '' }: { at: string | number; prefix?: string }) {
  const now = useNow();
  const time = new Date(at);
  return (
    <time className="num" dateTime={time.toISOString()} title={`${localTime(at)} (${utcTime(at)})`}>
      {prefix}
      {age(Math.max(0, now - time.getTime()))}
    </time>
  );
}

type NumProps = { value: ReactNode; unit?: string; source?: string; at?: string | null; title?: string };

/** A measured number: its unit, and on demand who measured it and when. Unknown looks unknown. */
export function Num({ value, unit, source, at, title }: NumProps) {
  if (value === null || value === undefined) {
    return (
      <span className="muted" title="not measured yet">
        –
      </span>
    );
  }
  const origin = [title, source, at ? utcTime(at) : null].filter(Boolean).join(' · ');
  return (
    <span className="num" title={origin || undefined}>
      {value}
      {unit ? ` ${unit}` : null}
      {source || at ? (
        <span className="num-source">
          {' · '}
          {source}
          {source && at ? ', ' : null}
          {at ? <Age at={at} /> : null}
        </span>
      ) : null}
    </span>
  );
}

type AmountProps = { base: string | bigint; aligned?: boolean; bare?: boolean; title?: string };

/** An exact token amount. `aligned` shows all decimals, the trailing zeros dimmed, so that columns line up. */
export function Amount({ base, aligned, bare, title = `${BigInt(base)} base units` }: AmountProps) {
  const { token } = useNetwork();
  const exact = formatUnits(base, token.decimals);
  const full = aligned ? formatUnits(base, token.decimals, token.decimals) : exact;
  return (
    <span className="num" title={title}>
      {exact}
      {full === exact ? null : <span className="dim">{full.slice(exact.length)}</span>}
      {bare ? null : `\u00a0${token.symbol}`}
    </span>
  );
}

/** What a payment comes to; on demand how. Not known before the attestors have shown their scores. */
export function Pay({ payment }: { payment: Pick<Payment, 'units' | 'rate' | 'quality' | 'amount'> }) {
  if (payment.amount === null) return <span className="muted">–</span>;
  const title = `${payment.units} samples × ${payment.rate} base units × ${payment.quality} / 10 000, rounded down`;
  return <Amount base={payment.amount} aligned title={title} />;
}

/** Base units per sample, told as tokens per million samples, which people can compare. */
export function Rate({ rate }: { rate: string | bigint }) {
  const { token } = useNetwork();
  return (
    <span title={`${BigInt(rate)} base units per sample`}>
      {formatUnits(BigInt(rate) * 1_000_000n, token.decimals)} {token.symbol} per million samples
    </span>
  );
}

type BarProps = { value: number; label: string; tone?: 'ok' | 'idle'; text?: string };

/** `value` in percent. */
export function Bar({ value, label, tone, text }: BarProps) {
  const bounded = Math.max(0, Math.min(100, value));
  return (
    <div
      className={tone ? `bar ${tone}` : 'bar'}
      role="progressbar"
      aria-label={label}
      aria-valuenow={Math.round(bounded)}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuetext={text}
    >
      <span style={{ width: `${bounded}%` }} />
    </div>
  );
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    navigator.clipboard?.writeText(text).then(
      () => {
        setCopied(true);
        setTimeout(() => setCopied(false), 1500);
      },
      () => setCopied(false),
    );
  };
  return (
    <button
      type="button"
      className="icon-button"
      onClick={copy}
      aria-label={copied ? 'Copied' : `Copy ${label}`}
      title={`Copy ${label}`}
    >
      {copied ? <CheckIcon /> : <CopyIcon />}
    </button>
  );
}

export function Hash({
  value,
  label = 'hash',
  head = 8,
  tail = 6,
}: {
  value: string;
  label?: string;
  head?: number;
  tail?: number;
}) {
  return (
    <span className="address">
      <span className="hash" title={value}>
        {short(value, head, tail)}
      </span>
      <CopyButton text={value} label={label} />
    </span>
  );
}

/** An address with a picture made here, from itself: no service is asked. */
export function Address({ value, href, copy = true }: { value: string; href?: ReactNode; copy?: boolean }) {
  return (
    <span className="address">
      <span className="blockie" style={blockie(value)} aria-hidden="true" />
      {href ?? (
        <span className="hash" title={value}>
          {short(value)}
        </span>
      )}
      {copy ? <CopyButton text={value} label="address" /> : null}
    </span>
  );
}

function blockie(address: string): CSSProperties {
  const hue = (from: number) => (Number.parseInt(address.slice(from, from + 4), 16) || 0) % 360;
  return { background: `linear-gradient(135deg, hsl(${hue(2)} 65% 55%) 50%, hsl(${hue(6)} 65% 45%) 50%)` };
}

export function Skeleton({ height, width = '100%' }: { height: number; width?: number | string }) {
  return <div className="skeleton" style={{ height, width }} />;
}

export function Empty({
  title,
  children,
  action,
}: {
  title: string;
  children?: ReactNode;
  action?: ReactNode;
}) {
  return (
    <div className="empty">
      <strong>{title}</strong>
      {children ? <p>{children}</p> : null}
      {action}
    </div>
  );
}

export function Panel({
  title,
  aside,
  children,
  flush,
}: {
  title?: ReactNode;
  aside?: ReactNode;
  children: ReactNode;
  flush?: boolean;
}) {
  return (
    <section className="panel">
      {title ? (
        <header className="panel-head">
          <h2>{title}</h2>
          {aside}
        </header>
      ) : null}
      {flush ? children : <div className="panel-body">{children}</div>}
    </section>
  );
}
