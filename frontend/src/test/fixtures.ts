/** Entities as the server sends them, for tests: a job of three rounds on two nodes. */

import type {
  Assignment,
  Audit,
  Bid,
  Contribution,
  Deterrence,
  Job,
  Measurement,
  Network,
  Node,
  Payment,
  Round,
} from '@/api/types';
import { DEFAULT_SPEC } from '@/features/jobs/draft';
import vectors from '../../../tests/vectors/protocol.json';

export const REQUESTER = '0xC2418a938F698917A7cbfA06a1d1f74f75Ad3e39';
export const OPERATOR = '0x018Db83cfB01f3db1Ee02a84d7c0e202610ff632';
const HASH = 'ab'.repeat(32);
const at = (seconds: number) => new Date(Date.UTC(2026, 10, 21, 12, 0, seconds)).toISOString();

export const network: Network = {
  version: '0.1.0',
  chain: {
    id: 31337,
    name: 'Local test chain',
    rpc_url: 'http://localhost:8545',
    block_seconds: 1,
    finality_seconds: 2,
    currency: { name: 'ETH', symbol: 'ETH', decimals: 18 },
    explorer_url: null,
    test: true,
  },
  contracts: {
    market: '0x5FbDB2315678afecb367f032d93F642f64180aa3',
    token: '0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512',
    registry: '0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0',
    court: '0xCf7Ed3AccA5a467e9e704C703E8D87F634fB0Fc9',
    timelock: '0xDc64a140Aa3E981100a9becA4E685f962f0cF6C9',
  },
  token: { symbol: 'tUSD', decimals: 6, name: 'HyperGPU Test USD' },
  coordinator: REQUESTER,
  attestors: [REQUESTER],
  quorum: 1,
  epoch: 1,
  settlement_mode: 'batched',
  paused: { new_jobs_until: null, settlement_until: null },
  min_stake: '100000000',
  exit_notice_seconds: 3600,
  indexed_block: 1204,
  final_block: 1204,
  alarms: [],
  emulated: null,
};

export function job(change: Partial<Job> = {}): Job {
  return {
    id: 1,
    chain_id: 1,
    name: 'Handwritten digits',
    state: 'running',
    reason: null,
    requester: REQUESTER,
    spec: DEFAULT_SPEC,
    spec_hash: vectors.spec.sha256,
    escrow: '307200',
    spent: '0',
    max_rate: '5',
    runway: null,
    shortfall: null,
    refund: null,
    round: 0,
    rounds: 12,
    start_metric: { loss: 2.31, accuracy: 0.1 },
    metric: { loss: 2.31, accuracy: 0.1 },
    target: { metric: 'accuracy', value: 0.95 },
    reached_target: false,
    data_source: 'digits',
    checkpoint: null,
    finish_by: null,
    goal: 'price',
    parameters: null,
    predicted: null,
    created_at: at(0),
    funded_at: at(1),
    first_step_at: at(2),
    completed_at: null,
    closed_at: null,
    ...change,
  };
}

export function round(number: number, change: Partial<Round> = {}): Round {
  return {
    id: 10 + number,
    number,
    state: 'open',
    base: HASH,
    after: null,
    evidence: null,
    settlement: null,
    metric: null,
    expected: 2,
    accepted: 0,
    plan: null,
    opened_at: at(10 * number),
    deadline: at(10 * number + 120),
    closed_at: null,
    aggregated_at: null,
    settled_at: null,
    accepted_at: null,
    ...change,
  };
}

export function assignment(roundNumber: number, node: number, change: Partial<Assignment> = {}): Assignment {
  return {
    id: 100 + roundNumber * 10 + node,
    round: roundNumber,
    node_id: node,
    state: 'leased',
    attempt: 1,
    step: 2,
    steps: 40,
    encoding: 'int4',
    reasons: [],
    predicted: null,
    actual: null,
    origin: null,
    losses: [
      [1, 2.3],
      [2, 2.2],
    ],
    leased_at: at(10 * roundNumber + 1),
    reason: null,
    ...change,
  };
}

export function contribution(
  roundNumber: number,
  node: number,
  change: Partial<Contribution> = {},
): Contribution {
  return {
    id: 200 + roundNumber * 10 + node,
    round: roundNumber,
    node_id: node,
    state: 'accepted',
    units: 1280,
    artifact: HASH,
    bytes: 19_876,
    received_at: at(10 * roundNumber + 6),
    score: null,
    standing: null,
    quality: 10_000,
    weight: 0.5,
    code: null,
    reason: null,
    signature: `0x${'11'.repeat(65)}`,
    recorded_tx: null,
    recorded_at: null,
    ...change,
  };
}

export function payment(roundNumber: number, node: number, change: Partial<Payment> = {}): Payment {
  return {
    id: 300 + roundNumber * 10 + node,
    contribution_id: 200 + roundNumber * 10 + node,
    job_id: 1,
    round: roundNumber,
    node_id: node,
    operator: OPERATOR,
    units: 1280,
    rate: '5',
    quality: 10_000,
    amount: '6400',
    state: 'queued',
    tx_hash: null,
    block: null,
    recorded_tx: null,
    reason: null,
    handed_in_at: at(10 * roundNumber + 6),
    sent_at: null,
    included_at: null,
    final_at: null,
    ...change,
  };
}

export function node(id: number, change: Partial<Node> = {}): Node {
  return {
    id,
    operator: OPERATOR,
    hot_key: `0x${'0'.repeat(39)}${id}`,
    name: `gpu-${id}`,
    state: 'online',
    device: 'NVIDIA H200',
    stake: '100000000',
    measured: {
      rtt: { value: 0.0082, deviation: 0.0011, at: at(0), source: 'heartbeat', claimed: true, samples: 12 },
    },
    samples_per_second: { value: 18_250, at: at(0) },
    rounds: 3,
    units: 3840,
    quality_sum: 30_000,
    faults: 0,
    earned: '19200',
    credit: '19200',
    last_seen: at(0),
    working_on: { job_id: 1, round: 0 },
    rating: null,
    suspension: null,
    health: null,
    part: null,
    choices: [],
    ...change,
  };
}

const seen = { deviation: 0.01, at: at(0), samples: 9, claimed: false, history: [[1e9, 0.2]] };
export const measurements: Measurement[] = [
  { ...seen, node_id: 1, quantity: 'rtt', unit: 's', of: '', value: 0.105, source: 'heartbeat' },
  {
    ...seen,
    node_id: 1,
    quantity: 'rtt',
    unit: 's',
    of: '',
    value: 0.05,
    source: 'heartbeat',
    claimed: true,
  },
  { ...seen, node_id: 1, quantity: 'speed', unit: 'samples/s', of: 'mlp-1a', value: 412, source: 'work' },
];
export const pairs: Measurement[] = [
  {
    ...seen,
    node_id: 1,
    quantity: 'peer_rtt',
    unit: 's',
    of: '2',
    value: 0.0042,
    source: 'peer',
    claimed: true,
  },
];

export function audit(roundNumber: number, node: number, change: Partial<Audit> = {}): Audit {
  return {
    id: 500 + roundNumber * 10 + node,
    contribution_id: 200 + roundNumber * 10 + node,
    job_id: 1,
    round: roundNumber,
    node_id: node,
    segment: 3,
    state: 'requested',
    shadow: true,
    block: 44,
    block_hash: `0x${HASH}`,
    error: null,
    encoding_error: null,
    tolerance: null,
    precision: 'fp32',
    operator_class: 'NVIDIA H200',
    auditor_class: '',
    evidence: '',
    evidence_bytes: null,
    proven: false,
    code: null,
    reason: null,
    case: null,
    requested_at: at(10 * roundNumber + 9),
    deadline: at(10 * roundNumber + 609),
    answered_at: null,
    judged_at: null,
    ...change,
  };
}

export function deterrence(change: Partial<Deterrence> = {}): Deterrence {
  return {
    rate: 0.02,
    newcomer_rate: 0.25,
    newcomer_rounds: 4,
    segments: 1,
    stride: 5,
    segments_of_round: 8,
    lazy_part: 0.1,
    caught_lazy: 0.0025,
    caught_idle: 0.0198,
    left_lazy: 0.881,
    left_idle: 0.32,
    auditing: 0.0025,
    auditing_newcomers: 0.031,
    shown_bytes: 48_000,
    case_takes: 2,
    deterring_rate: 0.354,
    assumed: { cost: 0.7, missed: 0.01, safety: 3 },
    honest_audits_needed: 300,
    nodes: [
      {
        node_id: 1,
        pay: '6400',
        at_stake: '12800',
        stake: '100000000',
        withheld: '19200',
        needed: '678788',
        enough: false,
      },
      {
        node_id: 2,
        pay: '6400',
        at_stake: '1000',
        stake: '1000',
        withheld: '0',
        needed: '678788',
        enough: false,
      },
    ],
    classes: [
      {
        precision: 'fp32',
        operator_class: 'NVIDIA H200',
        auditor_class: 'CPU x86_64',
        honest: 41,
        false_alarms: 0,
        highest_rate: 0.0712,
        calibrated: false,
      },
    ],
    ...change,
  };
}

export function bid(node_id: number, change: Partial<Bid> = {}): Bid {
  return {
    id: 400 + node_id,
    job_id: 0,
    node_id,
    rate: '5',
    capacity: 100_000,
    expires_at: '2999-01-01T00:00:00Z',
    nonce: 0,
    state: 'open',
    ...change,
  };
}
