import { type InputHTMLAttributes, type ReactNode, type SelectHTMLAttributes, useId } from 'react';

type Shared = { label: string; hint?: ReactNode; error?: ReactNode; unit?: string; whole?: boolean };

/** A labelled input whose hint and error are announced with it. */
export function Field({
  label,
  hint,
  error,
  unit,
  whole,
  ...input
}: Shared & InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  const element = (
    <input
      className="input"
      autoComplete="off"
      spellCheck={false}
      {...input}
      id={id}
      aria-invalid={error ? true : undefined}
      aria-describedby={`${id}-hint ${id}-error`}
    />
  );
  return (
    <div className={whole ? 'field whole' : 'field'}>
      <label htmlFor={id}>{label}</label>
      {unit ? (
        <div className="with-unit">
          {element}
          <span>{unit}</span>
        </div>
      ) : (
        element
      )}
      <Notes id={id} hint={hint} error={error} />
    </div>
  );
}

type Option = { value: string; label: string };

export function Select({
  label,
  hint,
  error,
  whole,
  options,
  ...input
}: Shared & { options: readonly Option[] } & SelectHTMLAttributes<HTMLSelectElement>) {
  const id = useId();
  return (
    <div className={whole ? 'field whole' : 'field'}>
      <label htmlFor={id}>{label}</label>
      <select className="input" {...input} id={id} aria-describedby={`${id}-hint ${id}-error`}>
        {options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </select>
      <Notes id={id} hint={hint} error={error} />
    </div>
  );
}

function Notes({ id, hint, error }: { id: string; hint?: ReactNode; error?: ReactNode }) {
  return (
    <>
      <span id={`${id}-hint`} className="hint" hidden={!hint}>
        {hint}
      </span>
      <span id={`${id}-error`} className="error" hidden={!error}>
        {error}
      </span>
    </>
  );
}
