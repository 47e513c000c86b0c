import { type ReactNode, useState } from 'react';
import { Field } from '@/components/Field';

type Props = {
  label: string;
  value: number;
  change: (value: number) => void;
  hint?: ReactNode;
  unit?: string;
  integer?: boolean;
  least?: number;
  testId?: string;
};

/** A number that may be half typed: the text stays as typed until the value changes from elsewhere. */
export function NumberField({ label, value, change, hint, unit, integer, least = 0, testId }: Props) {
  const [typed, setTyped] = useState({ text: String(value), of: value });
  const text = typed.of === value ? typed.text : String(value);
  const parsed = parse(text, integer, least);
  const edit = (next: string) => {
    const number = parse(next, integer, least);
    setTyped({ text: next, of: number ?? value });
    if (number !== null && number !== value) change(number);
  };
  return (
    <Field
      label={label}
      hint={hint}
      unit={unit}
      inputMode={integer ? 'numeric' : 'decimal'}
      value={text}
      onChange={(event) => edit(event.target.value)}
      error={parsed === null ? `${integer ? 'A whole number' : 'A number'}, at least ${least}.` : undefined}
      data-testid={testId}
    />
  );
}

function parse(text: string, integer: boolean | undefined, least: number): number | null {
  const trimmed = text.trim();
  if (!/^\d+(\.\d+)?(e-?\d+)?$/i.test(trimmed)) return null;
  const value = Number(trimmed);
  return Number.isFinite(value) && value >= least && (!integer || Number.isSafeInteger(value)) ? value : null;
}
