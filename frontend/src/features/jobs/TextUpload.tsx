import { useMutation } from '@tanstack/react-query';
import { type ReactNode, useRef, useState } from 'react';
import { uploadDataset } from '@/api/endpoints';
import { useSession } from '@/api/session';
import { Hash } from '@/components/basics';
import { ErrorNotice } from '@/components/Notice';
import { bytes } from '@/lib/format';

type Props = { sha256: string | undefined; uploaded: (sha256: string) => void; gate: ReactNode };

/** Uploads a text file and names it by its hash. Uploading belongs to an account, so it needs a session. */
export function TextUpload({ sha256, uploaded, gate }: Props) {
  const session = useSession();
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const upload = useMutation({ mutationFn: uploadDataset, onSuccess: (result) => uploaded(result.sha256) });
  const take = (file: File | undefined) => {
    if (file) upload.mutate(file);
  };
  if (!session) {
    return (
      <div className="drop">
        <p>Sign in first: an uploaded file belongs to your account. Whoever trains the job can read it.</p>
        {gate}
      </div>
    );
  }
  return (
    <div className="stack tight">
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the button inside does the same by keyboard */}
      <div
        className="drop"
        data-over={over}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          take(event.dataTransfer.files[0]);
        }}
      >
        {upload.isPending ? (
          <p role="status">
            Uploading {upload.variables.name} ({bytes(upload.variables.size)})…
          </p>
        ) : sha256 ? (
          <p role="status">
            {upload.data ? `${upload.variables?.name}, ${bytes(upload.data.size)}: ` : 'Uploaded: '}
            <Hash value={sha256} label="file hash" />
          </p>
        ) : (
          <p>Drop a plain text file here. Operators who train the job can read it.</p>
        )}
        <button
          type="button"
          className="button small"
          disabled={upload.isPending}
          onClick={() => input.current?.click()}
        >
          {sha256 ? 'Choose another file' : 'Choose a file'}
        </button>
        <input
          ref={input}
          type="file"
          className="visually-hidden"
          tabIndex={-1}
          aria-label="Text file"
          data-testid="new-job-file"
          onChange={(event) => take(event.target.files?.[0])}
        />
      </div>
      {upload.error ? <ErrorNotice error={upload.error} /> : null}
    </div>
  );
}
