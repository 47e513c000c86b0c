import { useQuery } from '@tanstack/react-query';
import { artifactUrl } from '@/api/endpoints';
import { useNetwork } from '@/api/network';
import type { Job, Round } from '@/api/types';
import { Address, Amount, Chip, CopyButton, Hash, Panel, Rate } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { canonicalJson, sha256Hex } from '@/lib/canonical';
import { loss } from '@/lib/format';

/** Everything that decides the outcome, exactly as it was hashed and put on chain. */
export function JobConfig({ job, rounds }: { job: Job; rounds: readonly Round[] }) {
  const network = useNetwork();
  const json = JSON.stringify(job.spec, null, 2);
  const saved = rounds.filter((round) => round.after !== null);
  return (
    <div className="split">
      <Panel title="Specification" aside={<CopyButton text={json} label="specification" />}>
        {/* biome-ignore lint/a11y/useSemanticElements: a scrolling text has no element of its own */}
        <pre
          className="code"
          role="region"
          aria-label="Specification as JSON"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it
          tabIndex={0}
        >
          {json}
        </pre>
      </Panel>
      <div className="stack">
        <Panel title="Hashes">
          <dl className="kv">
            <dt>Specification</dt>
            <dd>
              <Hash value={job.spec_hash} label="specification hash" /> <HashCheck job={job} />
            </dd>
            <dt>Checkpoint</dt>
            <dd>
              {job.checkpoint ? (
                <>
                  <Hash value={job.checkpoint} label="checkpoint hash" />
                  <a
                    className="block"
                    href={artifactUrl(job.checkpoint)}
                    download={`${slug(job.name)}-round-${job.round}.safetensors`}
                  >
                    Download the newest checkpoint
                  </a>
                </>
              ) : (
                <span className="muted">after the first round</span>
              )}
            </dd>
          </dl>
        </Panel>
        <Panel title="Money">
          <dl className="kv">
            <dt>Requester</dt>
            <dd>
              <Address value={job.requester} />
            </dd>
            <dt>Escrow</dt>
            <dd>
              <Amount base={job.escrow} />
            </dd>
            <dt>Rate, at most</dt>
            <dd>
              <Rate rate={job.max_rate} />
            </dd>
            <dt>Contract</dt>
            <dd>
              <Address value={network.contracts.market} />
            </dd>
            <dt>Chain</dt>
            <dd>
              {network.chain.name} ({network.chain.id})
            </dd>
          </dl>
        </Panel>
        {saved.length ? (
          <Panel title="Checkpoints" flush>
            <DataTable
              caption="Checkpoints by round"
              columns={[
                {
                  key: 'round',
                  label: 'Round',
                  lead: true,
                  cell: (round) => <span className="num">{round.number}</span>,
                },
                {
                  key: 'loss',
                  label: 'Loss',
                  number: true,
                  cell: (round) => (typeof round.metric?.loss === 'number' ? loss(round.metric.loss) : '–'),
                },
                {
                  key: 'hash',
                  label: 'Checkpoint',
                  cell: (round) => (
                    <Checkpoint sha256={round.after?.checkpoint ?? ''} job={job} round={round.number} />
                  ),
                },
                {
                  key: 'evidence',
                  label: 'Evidence',
                  cell: (round) =>
                    round.evidence ? (
                      <a
                        href={artifactUrl(round.evidence)}
                        title="The public inputs from which the qualities can be recomputed"
                      >
                        scores
                      </a>
                    ) : (
                      '–'
                    ),
                },
              ]}
              rows={[...saved].sort((a, b) => b.number - a.number)}
              id={(round) => round.id}
              limit={8}
            />
          </Panel>
        ) : null}
      </div>
    </div>
  );
}

function Checkpoint({ sha256, job, round }: { sha256: string; job: Job; round: number }) {
  return (
    <a className="hash" href={artifactUrl(sha256)} download={`${slug(job.name)}-round-${round}.safetensors`}>
      {sha256.slice(0, 10)}…
    </a>
  );
}

function slug(name: string): string {
  return (
    name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-|-$/g, '') || 'job'
  );
}

/** Hashes the specification here, in the visitor's browser, and compares. */
function HashCheck({ job }: { job: Job }) {
  const { data } = useQuery({
    queryKey: ['spec-hash', job.id, job.spec_hash],
    queryFn: () => sha256Hex(canonicalJson(job.spec)),
    staleTime: Number.POSITIVE_INFINITY,
  });
  if (data === undefined || data === null) return null;
  const agrees = data === job.spec_hash;
  return (
    <Chip
      tone={agrees ? 'ok' : 'bad'}
      title="SHA-256 of the canonical JSON (RFC 8785), computed by your browser"
    >
      {agrees ? 'recomputed by your browser' : 'your browser computes another hash'}
    </Chip>
  );
}
