/** Numbers, times and hashes as people read them. Thin spaces group digits; nothing turns into an exponent. */

/** Narrow no-break space, between groups of digits. */
export const THIN = '\u202f';
/** No-break space, between a number and its unit. */
const NB = '\u00a0';

export function count(value: number): string {
  return Math.trunc(value)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

/** A loss with as many decimals as tell neighbours apart. */
export function loss(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return value.toFixed(
    Math.abs(value) >= 100 ? 1 : Math.abs(value) >= 10 ? 2 : Math.abs(value) >= 0.01 ? 3 : 5,
  );
}

export function accuracy(value: number): string {
  return `${(value * 100).toFixed(value > 0.99 && value < 1 ? 2 : 1)}${NB}%`;
}

/** Basis points as a percentage. */
export function quality(basisPoints: number): string {
  return `${(basisPoints / 100).toFixed(basisPoints % 100 ? 2 : 0)}${NB}%`;
}

export function bytes(value: number): string {
  if (value < 1000) return `${value}${NB}B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let scaled = value;
  let unit = -1;
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${scaled.toFixed(scaled >= 100 ? 0 : 1)}${NB}${units[unit]}`;
}

export function milliseconds(value: number): string {
  return value < 10 ? `${value.toFixed(1)}${NB}ms` : `${Math.round(value)}${NB}ms`;
}

/** A span in its two largest units: "48 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)}${NB}s`;
  if (whole < 60) return `${whole}${NB}s`;
  if (whole < 3600) return join(Math.floor(whole / 60), 'min', whole % 60, 's');
  if (whole < 86_400) return join(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'min');
  return join(Math.floor(whole / 86_400), 'd', Math.floor((whole % 86_400) / 3600), 'h');
}

/** From one duration to another: "20 s to 1 min 5 s", one where both read the same. */
export function durations(from: number, to: number): string {
  return duration(from) === duration(to) ? duration(to) : `${duration(from)} to ${duration(to)}`;
}

function join(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small ? `${large}${NB}${largeUnit} ${small}${NB}${smallUnit}` : `${large}${NB}${largeUnit}`;
}

/** A span in its largest unit, for ages: "just now", "12 s", "4 min", "3 h", "2 d". */
export function age(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 2) return 'just now';
  if (seconds < 60) return `${seconds}${NB}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${NB}min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}${NB}h ago`;
  return `${Math.floor(seconds / 86_400)}${NB}d ago`;
}

/** The middle of a hash or an address left out. */
export function short(hex: string, head = 6, tail = 4): string {
  return hex.length <= head + tail + 1 ? hex : `${hex.slice(0, head)}…${hex.slice(-tail)}`;
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

export const clockTime = (at: string | number) => clock.format(new Date(at));
export const localTime = (at: string | number) => date.format(new Date(at));
/** The same instant in UTC, for titles. */
export const utcTime = (at: string | number) =>
  `${new Date(at).toISOString().replace('T', ' ').slice(0, 19)} UTC`;
