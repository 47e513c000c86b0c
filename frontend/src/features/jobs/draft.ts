/** The job that a requester is writing: one specification behind the form and the JSON alike. */

import type { EncodingSpec, JobSpec } from '@/api/types';

const ENCODING: EncodingSpec = {
  kind: 'int4',
  chunk: 4096,
  k: 128,
  indices: 'elias_fano',
  levels: 2,
  error_decay: 0.9,
};

/** The protocol's defaults; a test compares them with tests/vectors/protocol.json. */
export const DEFAULT_SPEC: JobSpec = {
  version: 1,
  seed: 0,
  model: { architecture: 'mlp', config: {} },
  data: { kind: 'digits', files: {}, sequence_length: 64 },
  inner: {
    optimizer: 'adamw',
    steps: 40,
    batch_size: 32,
    micro_batch: null,
    learning_rate: 0.002,
    warmup_steps: 20,
    schedule: 'constant',
    final_fraction: 0.1,
    weight_decay: 0.01,
    clip_norm: 1,
    precision: 'fp32',
    activation_checkpointing: false,
    compile: false,
  },
  outer: { optimizer: 'nesterov', learning_rate: 0.7, momentum: 0.5, final_fraction: 1 },
  encoding: ENCODING,
  downlink: ENCODING,
  aggregation: {
    rule: 'geometric_median',
    gate: true,
    gate_tolerance: 0.01,
    clip_factor: 1,
    hostile: 0.25,
    least_senders: 0.25,
  },
  audit: { rate: 0.02, newcomer_rate: 0.65, newcomer_rounds: 8, stride: 5, segments: 2 },
  rounds: { rounds: 12, nodes: 4, quorum: 2, deadline_seconds: 120 },
  network: {
    policy: 'adaptive',
    least_steps: 0.25,
    most_steps: 4,
    most_stale: 2,
    stale_discount: 0.25,
    overlap: 'none',
    fragments: 1,
  },
  target: { metric: 'accuracy', value: 0.95 },
};

export type Preset = { id: string; title: string; about: string; name: string; spec: JobSpec };

export const PRESETS: readonly Preset[] = [
  {
    id: 'digits',
    title: 'Handwritten digits',
    about: '1,797 real scans, bundled. A small network passes 95 % in a minute or two.',
    name: 'Handwritten digits',
    spec: DEFAULT_SPEC,
  },
  {
    id: 'text',
    title: 'Your own text',
    about: 'Upload a plain text file; a small byte-level GPT learns to write like it.',
    name: 'Byte-level GPT',
    spec: {
      ...DEFAULT_SPEC,
      model: { architecture: 'gpt', config: {} },
      data: { kind: 'text', files: {}, sequence_length: 64 },
      rounds: { ...DEFAULT_SPEC.rounds, rounds: 20 },
      target: { metric: 'loss', value: 2.5 },
    },
  },
];

/** What the requester pays at most: every node of every round at full quality and the highest rate. */
export function worstCase(spec: JobSpec, rate: bigint): bigint {
  const { rounds, inner } = spec;
  const factors = [rounds.rounds, rounds.nodes, inner.steps, inner.batch_size];
  return factors.every((factor) => Number.isSafeInteger(factor) && factor > 0)
    ? factors.reduce((product, factor) => product * BigInt(factor), rate)
    : 0n;
}

const SECTIONS = [
  'model',
  'data',
  'inner',
  'outer',
  'encoding',
  'downlink',
  'aggregation',
  'audit',
  'rounds',
  'network',
  'target',
] as const;

/** A specification typed as JSON, with defaults for what it leaves out; or the reason why it is none. */
export function parseSpec(text: string): { spec: JobSpec; error: null } | { spec: null; error: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { spec: null, error: `This is not JSON: ${(error as Error).message}` };
  }
  if (!isObject(value)) return { spec: null, error: 'A specification is a JSON object.' };
  const spec: Record<string, unknown> = { ...DEFAULT_SPEC, ...value };
  for (const section of SECTIONS) {
    const given = value[section];
    if (given !== undefined && !isObject(given))
      return { spec: null, error: `"${section}" must be an object.` };
    spec[section] = { ...DEFAULT_SPEC[section], ...given };
  }
  return { spec: spec as JobSpec, error: null };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What the form can see is missing before the server is asked. */
export function missing(spec: JobSpec, name: string): string | null {
  if (!name.trim()) return 'Give the job a name.';
  if (spec.data.kind === 'text' && !spec.data.files.text) return 'Choose the text file to train on.';
  return null;
}
