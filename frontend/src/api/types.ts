/**
 * What the HTTP interface and the socket carry: `schema.d.ts` is generated from openapi.yaml (npm run generate), and
 * this file gives its entities short names.
 *
 * Amounts are strings of token base units, hashes 64 hex digits without 0x, times ISO-8601 in UTC.
 */

import type { components } from './schema';

type Schemas = components['schemas'];

/** An answer always carries every field; the schema marks some optional because the database has defaults for them. */
type Full<Name extends keyof Schemas> = Required<Schemas[Name]>;

/** A job with its specification typed: the server has validated it. */
export type Job = Omit<Full<'Job'>, 'spec'> & { spec: JobSpec };
export type JobState = Job['state'];
export type Metric = Full<'Metric'>;
export type Round = Full<'Round'>;
/** `losses` holds at most 64 pairs of step and loss. */
export type Assignment = Omit<Full<'Assignment'>, 'losses'> & { losses: [number, number][] };
export type Contribution = Full<'Contribution'>;
export type Payment = Full<'Payment'>;
/** A dispute about the pay of a contribution, at the court. */
export type Case = Full<'Case'>;
export type CaseState = Case['state'];
/** A segment of a contribution that chance has chosen to be computed again. */
export type Audit = Omit<Full<'Audit'>, 'case'> & { case: Case | null };
export type AuditState = Audit['state'];
/** What cheating would gain and cost on a job. */
export type Deterrence = Full<'Deterrence'>;
export type PaymentState = Payment['state'];
/** `stake` is the operator's, shared by all of its nodes. */
export type Node = Full<'Node'>;
export type NodeState = Node['state'];
/** What a node was given in a round, and why; `origin` is the round in which late work was begun. */
export type Part = Full<'Part'>;
/** Whether a job took a node for a place when it last looked for nodes, and why. */
export type Choice = Full<'Choice'>;
/** A measured value, with who measured it: `claimed` is the node's own word. */
export type Fact = Full<'Fact'>;
/** A quantity of a node over time; `of`: the architecture of a speed, the node to which, by which or from which it was. */
export type Measurement = Full<'Measurement'>;
export type Quantity = Measurement['quantity'];
/** `job_id` is the id on chain; 0 is a standing bid, good for any job. */
export type Bid = Full<'Bid'>;

export type Architecture = 'mlp' | 'cnn' | 'resnet' | 'vgg' | 'gpt' | 'transformers';
export type DataKind = 'digits' | 'text' | 'idx' | 'cifar10' | 'npz';

export type JobSpec = {
  version: 1;
  seed: number;
  model: { architecture: Architecture; config: Record<string, unknown> };
  data: { kind: DataKind; files: Record<string, string>; sequence_length: number };
  inner: {
    steps: number;
    batch_size: number;
    optimizer: 'adamw' | 'muon';
    micro_batch: number | null;
    learning_rate: number;
    warmup_steps: number;
    schedule: 'constant' | 'cosine' | 'wsd';
    final_fraction: number;
    weight_decay: number;
    clip_norm: number;
    precision: 'fp32' | 'bf16';
    activation_checkpointing: boolean;
    compile: boolean;
  };
  outer: { optimizer: 'sgd' | 'nesterov'; learning_rate: number; momentum: number; final_fraction: number };
  encoding: EncodingSpec;
  downlink: EncodingSpec;
  aggregation: {
    rule:
      | 'weighted_mean'
      | 'coordinate_median'
      | 'trimmed_mean'
      | 'multi_krum'
      | 'geometric_median'
      | 'centered_clipping';
    gate: boolean;
    gate_tolerance: number;
    clip_factor: number;
    hostile: number;
    least_senders: number;
  };
  audit: {
    rate: number;
    newcomer_rate: number;
    newcomer_rounds: number;
    stride: number;
    segments: number;
  };
  rounds: { rounds: number; nodes: number; quorum: number; deadline_seconds: number };
  network: {
    policy: 'adaptive' | 'equal';
    least_steps: number;
    most_steps: number;
    most_stale: number;
    stale_discount: number;
    overlap: 'none' | 'eager';
    fragments: number;
  };
  target: { metric: 'accuracy' | 'loss'; value: number };
};

/** How a vector of parameters' size travels. */
export type EncodingSpec = {
  kind: 'fp32' | 'bf16' | 'int8' | 'int4' | 'topk';
  chunk: number;
  k: number;
  indices: 'elias_fano' | 'packed';
  levels: 1 | 2;
  error_decay: number;
};

/** A specification as a requester writes it: what is left out takes its default. */
export type PartialSpec = {
  [Section in keyof JobSpec]?: JobSpec[Section] extends object ? Partial<JobSpec[Section]> : JobSpec[Section];
};

export type Network = Omit<Full<'Network'>, 'contracts'> & {
  contracts: Record<keyof Full<'Contracts'>, `0x${string}`>;
};

/** The calls of `settleRound` that pay a round: what a stranger needs to recompute it, or to settle it. */
export type Settlement = Omit<Full<'Settlement'>, 'batches'> & { batches: SettlementCall[] };
export type SettlementCall = {
  header: { round: number; batch: number; epoch: number };
  receipts: `0x${string}`;
  attestations: AttestationCall[];
};
/** Of a member that committed and did not open, `salt` is the commitment, and the rest is empty. */
export type AttestationCall = {
  member: number;
  salt: `0x${string}`;
  scores: `0x${string}`;
  signature: `0x${string}`;
};

/** Where a snapshot stands in its topic's sequence of events. */
export type StreamPosition = Full<'Stream'>;

export type JobList = { jobs: Job[]; stream: StreamPosition };
export type OperatorList = { nodes: Node[]; stream: StreamPosition };
export type PaymentList = { payments: Payment[] };

export type JobSnapshot = {
  job: Job;
  rounds: Round[];
  assignments: Assignment[];
  contributions: Contribution[];
  nodes: Node[];
  payments: Payment[];
  audits: Audit[];
  stream: StreamPosition;
};

export type OperatorSnapshot = {
  operator: Full<'Operator'>;
  nodes: Node[];
  bids: Bid[];
  payments: Payment[];
  audits: Audit[];
  stream: StreamPosition;
};

/** Amounts travel as text, which the server reads as whole numbers of any size. */
/** `finish_by` and `goal` stand beside the specification, not in it: they are not hashed. */
export type JobRequest = {
  name: string;
  spec: PartialSpec;
  max_rate: string;
  escrow: string;
  finish_by: string | null;
  goal: Job['goal'];
};
/** Who would train a job, until when, for how much; `spec` is the job's with the proposal's changes. */
export type Proposal = Omit<Full<'Proposal'>, 'spec'> & { spec: JobSpec };
export type Proposals = Omit<Full<'Proposals'>, 'proposals'> & { proposals: Proposal[] };
export type JobCheck = Omit<Full<'CheckedJob'>, 'spec'> & { spec: JobSpec };
export type BidRequest = Omit<Full<'PostBidRequest'>, 'rate'> & { rate: string };

/** Entities that an event changed, whole: the client upserts them by id. */
export type Changes = {
  job?: Job;
  jobs?: Job[];
  rounds?: Round[];
  assignments?: Assignment[];
  contributions?: Contribution[];
  nodes?: Node[];
  payments?: Payment[];
  bids?: Bid[];
  audits?: Audit[];
};

export type EventRecord = {
  topic: string;
  epoch: string;
  seq: number;
  type: string;
  at: string;
  changes: Changes;
};
export type EventPage = { epoch: string; seq: number; events: EventRecord[] };
