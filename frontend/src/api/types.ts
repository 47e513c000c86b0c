/**
 * What the HTTP interface and the socket carry, written from the interface's description.
 * Amounts are strings of token base units, hashes 64 hex digits without 0x, times ISO-8601 in UTC.
 */

export type Metric = { loss: number | null; accuracy: number | null };

export type JobState = 'draft' | 'funded' | 'running' | 'completed' | 'failed' | 'closed' | 'stopped';

export type Job = {
  id: number;
  /** The job's id on chain; null until its escrow is final. */
  chain_id: number | null;
  name: string;
  state: JobState;
  reason: string | null;
  requester: string;
  spec: JobSpec;
  spec_hash: string;
  escrow: string;
  spent: string;
  /** Base units per sample, at most. */
  max_rate: string;
  refund: string | null;
  /** Rounds aggregated so far. */
  round: number;
  rounds: number;
  start_metric: Metric | null;
  metric: Metric | null;
  target: { metric: 'accuracy' | 'loss'; value: number };
  reached_target: boolean;
  data_source: string;
  created_at: string;
  funded_at: string | null;
  first_step_at: string | null;
  completed_at: string | null;
  closed_at: string | null;
  checkpoint: string | null;
};

export type RoundState = 'open' | 'aggregating' | 'aggregated' | 'settled';

export type Round = {
  id: number;
  number: number;
  state: RoundState;
  opened_at: string;
  deadline: string;
  closed_at: string | null;
  aggregated_at: string | null;
  base: string;
  checkpoint: string | null;
  metric: Metric | null;
  accepted: number;
  expected: number;
  settled_at: string | null;
  settlement: { state: string; tx_hash: string | null; total: string | null } | null;
};

export type AssignmentState = 'open' | 'leased' | 'committed' | 'handed_in' | 'expired' | 'failed';

export type Assignment = {
  id: number;
  round: number;
  node_id: number;
  state: AssignmentState;
  attempt: number;
  step: number;
  steps: number;
  /** [step, loss] pairs, at most 64. */
  losses: [number, number][];
  leased_at: string | null;
  deadline: string;
  reason: string | null;
};

export type Contribution = {
  id: number;
  round: number;
  node_id: number;
  state: 'received' | 'accepted' | 'rejected';
  units: number;
  artifact: string;
  bytes: number;
  received_at: string;
  score: { loss_before: number; loss_after: number; improvement: number } | null;
  /** Basis points. */
  quality: number | null;
  weight: number | null;
  code: string | null;
  reason: string | null;
  signature: string;
};

export type PaymentState = 'attesting' | 'queued' | 'sent' | 'included' | 'final' | 'failed';

export type Payment = {
  id: number;
  contribution_id: number;
  job_id: number;
  round: number;
  node_id: number;
  operator: string;
  units: number;
  rate: string;
  quality: number;
  amount: string;
  state: PaymentState;
  tx_hash: string | null;
  block: number | null;
  handed_in_at: string;
  sent_at: string | null;
  included_at: string | null;
  final_at: string | null;
  reason: string | null;
};

export type NodeState = 'registered' | 'online' | 'stale' | 'offline' | 'retired';

export type Node = {
  id: number;
  operator: string;
  hot_key: string;
  name: string;
  state: NodeState;
  device: string | null;
  /** The operator's stake, shared by all of its nodes. */
  stake: string;
  rtt: { ms: number; at: string; source: string } | null;
  samples_per_second: { value: number; at: string } | null;
  rounds: number;
  units: number;
  earned: string;
  credit: string;
  last_seen: string | null;
  working_on: { job_id: number; round: number } | null;
};

export type Bid = {
  id: number;
  /** 0 is a standing bid, good for any job. */
  job_id: number;
  node_id: number;
  rate: string;
  capacity: number;
  expires_at: string;
  nonce: number;
  state: 'open' | 'taken' | 'cancelled' | 'expired';
};

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
    learning_rate: number;
    weight_decay: number;
    clip_norm: number;
  };
  outer: { optimizer: 'sgd' | 'nesterov'; learning_rate: number; momentum: number };
  encoding: { kind: 'dense' | 'int8' | 'topk'; chunk: number; k: number; error_decay: number };
  aggregation: { rule: 'geometric_median' | 'weighted_mean'; gate_tolerance: number; clip_factor: number };
  rounds: { rounds: number; nodes: number; quorum: number; deadline_seconds: number };
  target: { metric: 'accuracy' | 'loss'; value: number };
};

/** A specification as a requester writes it: what is left out takes its default. */
export type PartialSpec = {
  [Section in keyof JobSpec]?: JobSpec[Section] extends object ? Partial<JobSpec[Section]> : JobSpec[Section];
};

export type Network = {
  version: string;
  chain: {
    id: number;
    name: string;
    rpc_url: string;
    block_seconds: number;
    test: boolean;
    /** What gas is paid in; ether when the server does not say. */
    currency?: { name: string; symbol: string; decimals: number };
    explorer_url?: string | null;
  };
  contracts: { market: `0x${string}`; token: `0x${string}` };
  token: { symbol: string; decimals: number; name: string };
  coordinator: string;
  attestors: string[];
  quorum: number;
  min_stake: string;
  exit_notice_seconds: number;
  indexed_block: number;
  finalized_block: number;
  finalized_at: string | null;
  /** How network conditions are emulated, when they are. */
  emulated: string | null;
};

/** Where a snapshot stands in its topic's sequence of events. */
export type StreamPosition = { topic: string; epoch: string; seq: number };

export type JobList = { jobs: Job[]; stream: StreamPosition };

export type JobSnapshot = {
  job: Job;
  rounds: Round[];
  assignments: Assignment[];
  contributions: Contribution[];
  nodes: Node[];
  payments: Payment[];
  stream: StreamPosition;
};

export type OperatorList = { nodes: Node[]; stream: StreamPosition };

export type OperatorSnapshot = {
  operator: { address: string; stake: string; credit: string; earned: string };
  nodes: Node[];
  bids: Bid[];
  payments: Payment[];
  stream: StreamPosition;
};

export type JobRequest = { name: string; spec: PartialSpec; max_rate: string; escrow: string };

export type JobCheck = {
  spec: JobSpec;
  spec_hash: string;
  units_per_round: number;
  worst_case_cost: string;
  matching_nodes: number;
  online_nodes: number;
  cheapest_rate: string | null;
};

export type BidRequest = {
  job_id: number;
  node_id: number;
  rate: string;
  capacity: number;
  expires_at: number;
  nonce: number;
  signature: string;
};

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
