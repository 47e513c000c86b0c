import { useMutation } from '@tanstack/react-query';
import { type ReactNode, useState } from 'react';
import { useNavigate } from 'react-router';
import { draftJob } from '@/api/endpoints';
import { useNetwork } from '@/api/network';
import { useSession } from '@/api/session';
import type { Architecture, Job, JobRequest, JobSpec } from '@/api/types';
import { Panel } from '@/components/basics';
import { Field, Select } from '@/components/Field';
import { ErrorNotice, Notice } from '@/components/Notice';
import { momentOf } from '@/lib/deadline';
import { formatUnits, parseUnits } from '@/lib/money';
import { missing, PRESETS, type Preset, parseSpec, worstCase } from './draft';
import { NumberField } from './NumberField';
import { Review } from './Review';
import { TextUpload } from './TextUpload';

const PER_MILLION = 1_000_000n;
/** The contract keeps a job's highest rate in 96 bits. */
const MOST_RATE = 2n ** 96n - 1n;
const ARCHITECTURES: readonly Architecture[] = ['mlp', 'cnn', 'resnet', 'vgg', 'gpt', 'transformers'];

type Props = {
  /** A job to start from. */
  like: Job | null;
  /** What signs in, shown where that is missing. */
  gate: ReactNode;
};

/** Writes a job, checks it as it is written, and saves it as a draft that the next step funds. */
export function NewJob({ like, gate }: Props) {
  const { token } = useNetwork();
  const session = useSession();
  const navigate = useNavigate();
  const first = PRESETS[0] as Preset;
  const [preset, setPreset] = useState(like ? '' : first.id);
  const [name, setName] = useState(like?.name ?? first.name);
  const [spec, setSpec] = useState<JobSpec>(like?.spec ?? first.spec);
  const [json, setJson] = useState(() => JSON.stringify(spec, null, 2));
  const [jsonError, setJsonError] = useState<string | null>(null);
  const [price, setPrice] = useState(() =>
    like ? formatUnits(BigInt(like.max_rate) * PER_MILLION, token.decimals, 0) : '5',
  );
  const [typedEscrow, setTypedEscrow] = useState<string | null>(null);

  const [goal, setGoal] = useState(like?.goal ?? 'price');
  const [typedDeadline, setTypedDeadline] = useState('');

  const change = (next: JobSpec) => {
    setSpec(next);
    setJson(JSON.stringify(next, null, 2));
    setJsonError(null);
  };
  const choose = (chosen: Preset) => {
    setPreset(chosen.id);
    setName(chosen.name);
    change(chosen.spec);
  };
  const typeJson = (text: string) => {
    setJson(text);
    const parsed = parseSpec(text);
    setJsonError(parsed.error);
    if (parsed.spec) setSpec(parsed.spec);
  };

  const finishBy = momentOf(typedDeadline);
  const perMillion = parseUnits(price, token.decimals);
  const wholeRate = perMillion && perMillion % PER_MILLION === 0n ? perMillion / PER_MILLION : null;
  const rate = wholeRate !== null && wholeRate <= MOST_RATE ? wholeRate : null;
  const most = rate === null ? 0n : worstCase(spec, rate);
  const escrow = typedEscrow === null ? most : parseUnits(typedEscrow, token.decimals);
  const problem =
    missing(spec, name) ??
    (jsonError ? 'Mend the JSON below.' : null) ??
    (rate === null || rate === 0n ? 'Name a price per million samples.' : null) ??
    (!escrow ? 'Name the escrow.' : null) ??
    (finishBy !== null && Date.parse(finishBy) <= Date.now() ? 'Its deadline has passed.' : null);
  const request: JobRequest | null =
    problem === null
      ? { name: name.trim(), spec, max_rate: String(rate), escrow: String(escrow), finish_by: finishBy, goal }
      : null;
  const draft = useMutation({ mutationFn: draftJob, onSuccess: ({ job }) => navigate(`/new?job=${job.id}`) });

  return (
    <div className="split">
      <div className="stack">
        <Panel title="What to train">
          <div className="stack">
            <div className="presets">
              {PRESETS.map((item) => (
                <button
                  key={item.id}
                  type="button"
                  className="preset"
                  aria-pressed={preset === item.id}
                  onClick={() => choose(item)}
                  data-testid={`preset-${item.id}`}
                >
                  <strong>{item.title}</strong>
                  <span>{item.about}</span>
                </button>
              ))}
            </div>
            {spec.data.kind === 'text' ? (
              <TextUpload
                sha256={spec.data.files.text}
                gate={gate}
                uploaded={(sha256) => change({ ...spec, data: { ...spec.data, files: { text: sha256 } } })}
              />
            ) : null}
            <div className="fields">
              <Field
                label="Name"
                value={name}
                maxLength={80}
                onChange={(event) => setName(event.target.value)}
                data-testid="new-job-name"
              />
              <Select
                label="Model"
                value={spec.model.architecture}
                onChange={(event) =>
                  change({ ...spec, model: { architecture: event.target.value as Architecture, config: {} } })
                }
                options={ARCHITECTURES.map((value) => ({ value, label: value }))}
              />
              <Select
                label="Done when"
                value={spec.target.metric}
                onChange={(event) => {
                  const metric = event.target.value as 'accuracy' | 'loss';
                  change({ ...spec, target: { metric, value: metric === 'accuracy' ? 0.95 : 2.5 } });
                }}
                options={[
                  { value: 'accuracy', label: 'accuracy is at least' },
                  { value: 'loss', label: 'loss is at most' },
                ]}
              />
              <NumberField
                label="Target"
                value={spec.target.value}
                change={(value) => change({ ...spec, target: { ...spec.target, value } })}
                hint="on held-out data"
              />
            </div>
          </div>
        </Panel>
        <Panel title="How it is spread">
          <div className="fields">
            <Rounds spec={spec} change={change} />
            <Select
              label="Which nodes first"
              value={goal}
              onChange={(event) => setGoal(event.target.value as Job['goal'])}
              options={[
                { value: 'price', label: 'the cheapest' },
                { value: 'time', label: 'the fastest' },
              ]}
            />
            <Field
              label="Finish by"
              type="datetime-local"
              value={typedDeadline}
              onChange={(event) => setTypedDeadline(event.target.value)}
              hint="May be left out. It gets the job its nodes first where others pay about the same, and ends nothing."
              data-testid="new-job-finish-by"
            />
          </div>
        </Panel>
        <Panel title="What it may cost">
          <div className="fields">
            <Field
              label="Rate, at most"
              unit={`${token.symbol} / million`}
              inputMode="decimal"
              value={price}
              onChange={(event) => setPrice(event.target.value)}
              hint={rate === null ? undefined : `${rate} base units per sample at full quality`}
              error={
                rate === null
                  ? `In steps of ${formatUnits(PER_MILLION, token.decimals)} per million samples.`
                  : undefined
              }
              data-testid="new-job-rate"
            />
            <Field
              label="Escrow"
              unit={token.symbol}
              inputMode="decimal"
              value={typedEscrow ?? formatUnits(most, token.decimals)}
              onChange={(event) => setTypedEscrow(event.target.value)}
              hint={
                typedEscrow === null ? (
                  'Enough for every round at full quality.'
                ) : (
                  <button type="button" className="link" onClick={() => setTypedEscrow(null)}>
                    Use {formatUnits(most, token.decimals)}, the most it can cost
                  </button>
                )
              }
              error={escrow === null ? 'This is not an amount.' : undefined}
              data-testid="new-job-escrow"
            />
          </div>
        </Panel>
        <Panel
          title="Specification as JSON"
          aside={<span className="muted small">the form and this follow each other</span>}
        >
          <div className="field">
            <label htmlFor="spec-json" className="visually-hidden">
              Specification as JSON
            </label>
            <textarea
              id="spec-json"
              className="input"
              rows={14}
              spellCheck={false}
              value={json}
              aria-invalid={jsonError ? true : undefined}
              aria-describedby="spec-json-error"
              onChange={(event) => typeJson(event.target.value)}
              data-testid="new-job-json"
            />
            <span id="spec-json-error" className="error" hidden={!jsonError}>
              {jsonError}
            </span>
          </div>
        </Panel>
      </div>
      <div className="sticky">
        <Review request={request} problem={problem} escrow={escrow ?? 0n}>
          {draft.error ? <ErrorNotice error={draft.error} title="The draft was not saved." /> : null}
          {request && !session ? gate : null}
          {request && session ? (
            <button
              type="button"
              className="button primary wide"
              disabled={draft.isPending}
              onClick={() => draft.mutate(request)}
              data-testid="new-job-submit"
            >
              {draft.isPending ? 'Saving the draft…' : 'Save and go to funding'}
            </button>
          ) : null}
          {problem ? <Notice title={problem} /> : null}
        </Review>
      </div>
    </div>
  );
}

function Rounds({ spec, change }: { spec: JobSpec; change: (spec: JobSpec) => void }) {
  const rounds = (part: Partial<JobSpec['rounds']>) =>
    change({ ...spec, rounds: { ...spec.rounds, ...part } });
  const inner = (part: Partial<JobSpec['inner']>) => change({ ...spec, inner: { ...spec.inner, ...part } });
  return (
    <>
      <NumberField
        label="Rounds"
        integer
        least={1}
        value={spec.rounds.rounds}
        change={(value) => rounds({ rounds: value })}
        testId="new-job-rounds"
      />
      <NumberField
        label="Nodes in a round"
        integer
        least={1}
        value={spec.rounds.nodes}
        change={(value) => rounds({ nodes: value, quorum: Math.min(spec.rounds.quorum, value) })}
        testId="new-job-nodes"
      />
      <NumberField
        label="Enough at the deadline"
        integer
        least={1}
        value={spec.rounds.quorum}
        change={(value) => rounds({ quorum: value })}
        unit="contributions"
      />
      <NumberField
        label="Deadline of a round"
        integer
        least={5}
        value={spec.rounds.deadline_seconds}
        change={(value) => rounds({ deadline_seconds: value })}
        unit="seconds"
      />
      <NumberField
        label="Local steps per round"
        integer
        least={1}
        value={spec.inner.steps}
        change={(value) => inner({ steps: value })}
        hint="more steps, less traffic"
      />
      <NumberField
        label="Batch size"
        integer
        least={1}
        value={spec.inner.batch_size}
        change={(value) => inner({ batch_size: value })}
        unit="samples"
      />
    </>
  );
}
