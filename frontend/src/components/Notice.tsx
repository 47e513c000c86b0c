import type { ReactNode } from 'react';
import { ApiError } from '@/api/client';

type Props = { tone?: 'bad' | 'warn' | 'ok'; title: ReactNode; children?: ReactNode; action?: ReactNode };

export function Notice({ tone, title, children, action }: Props) {
  return (
    <div className={tone ? `notice ${tone}` : 'notice'} role={tone === 'bad' ? 'alert' : undefined}>
      <strong>{title}</strong>
      {children ? <div>{children}</div> : null}
      {action ? <div className="row">{action}</div> : null}
    </div>
  );
}

/** A refusal of the server: its sentence, and its code for those who report it. */
export function ErrorNotice({ error, title, retry }: { error: Error; title?: string; retry?: () => void }) {
  const code = error instanceof ApiError ? error.code : null;
  return (
    <Notice
      tone="bad"
      title={title ?? error.message}
      action={
        retry ? (
          <button type="button" className="button small" onClick={retry}>
            Try again
          </button>
        ) : null
      }
    >
      {title ? `${error.message} ` : null}
      {code ? <code className="small">{code}</code> : null}
    </Notice>
  );
}
