/** What went wrong with a wallet or a transaction, in words that say what happened and what to do. */

import {
  BaseError,
  ContractFunctionRevertedError,
  formatUnits as decimal,
  UserRejectedRequestError,
} from 'viem';

export type Remedy = 'retry' | 'switch' | 'gas' | 'tokens' | null;
export type Failure = { kind: FailureKind; title: string; body: string; remedy: Remedy };

export type FailureKind =
  | 'declined'
  | 'busy'
  | 'locked'
  | 'disconnected'
  | 'chain'
  | 'gas'
  | 'tokens'
  | 'refused'
  | 'reverted'
  | 'cancelled'
  | 'unreachable'
  | 'unknown';

export function failure(kind: FailureKind, title: string, body: string, remedy: Remedy = 'retry'): Failure {
  return { kind, title, body, remedy };
}

export const FAILURES = {
  declined: failure('declined', 'You declined the request', 'Nothing was sent.'),
  busy: failure(
    'busy',
    'Your wallet already has a request open',
    'Open the wallet and answer it to continue.',
  ),
  locked: failure('locked', 'Your wallet is locked', 'Unlock it, then try again.'),
  disconnected: failure('disconnected', 'No wallet is connected', 'Connect a wallet, then try again.'),
  cancelled: failure(
    'cancelled',
    'You cancelled this transaction',
    'Another one took its place. Nothing happened here.',
  ),
  unreachable: failure(
    'unreachable',
    'The chain cannot be reached',
    'Your funds are not affected. Sending is paused until the chain answers again.',
  ),
} as const;

export function wrongChain(wanted: string): Failure {
  return failure(
    'chain',
    'Your wallet is on another chain',
    `HyperGPU settles on ${wanted} here. Nothing was sent.`,
    'switch',
  );
}

export function noGas(needed: bigint, held: bigint, symbol: string): Failure {
  const missing = decimal(needed - held, 18).replace(/(\.\d{0,5}).*/, '$1');
  return failure(
    'gas',
    'Not enough for gas',
    `You need about ${missing} ${symbol} more. Your tokens are not affected.`,
    'gas',
  );
}

export function noTokens(needed: string, held: string): Failure {
  return failure('tokens', 'Not enough tokens', `This takes ${needed}; you hold ${held}.`, 'tokens');
}

type Facts = { chain: string };

/** Wallets disagree on codes, so codes come first and then their known words. */
export function describeFailure(error: unknown, { chain }: Facts): Failure {
  const revert = findError(error, ContractFunctionRevertedError);
  if (revert) return refused(revert);
  const code = codeOf(error);
  const text = textOf(error);
  if (code === 4001 || findError(error, UserRejectedRequestError) || DECLINED.test(text))
    return FAILURES.declined;
  if (code === -32002 || /already (pending|processing)|request already/i.test(text)) return FAILURES.busy;
  if (/wallet (is )?locked|device_locked|unlock/i.test(text)) return FAILURES.locked;
  if (/chain.*(mismatch|does not match)|(switch|wrong) (the )?(chain|network)/i.test(text))
    return wrongChain(chain);
  if (/insufficient funds|exceeds (the )?balance of the account/i.test(text)) {
    return failure(
      'gas',
      'Not enough for gas',
      'Your account cannot pay the fee of this transaction.',
      'gas',
    );
  }
  if (/connector not connected|not been authorized|unauthorized/i.test(text)) return FAILURES.disconnected;
  if (
    /fetch failed|failed to fetch|http request failed|timed? ?out|network ?error|disconnected/i.test(text)
  ) {
    return FAILURES.unreachable;
  }
  return failure('unknown', 'This did not work', text || 'The wallet gave no reason.');
}

const DECLINED =
  /user (rejected|denied|cancel)|rejected (the|by) (request|user)|denied transaction|action_rejected/i;

function findError<T extends Error>(error: unknown, kind: new (...args: never[]) => T): T | null {
  if (error instanceof kind) return error;
  const found = error instanceof BaseError ? error.walk((cause) => cause instanceof kind) : null;
  return found instanceof kind ? found : null;
}

function codeOf(error: unknown): number | null {
  for (
    let cause = error, depth = 0;
    cause && depth < 8;
    cause = (cause as { cause?: unknown }).cause, depth++
  ) {
    const code = (cause as { code?: unknown }).code;
    if (typeof code === 'number' && code !== -32603) return code;
  }
  return null;
}

function textOf(error: unknown): string {
  if (error instanceof BaseError)
    return error.details ? `${error.shortMessage} ${error.details}` : error.shortMessage;
  return error instanceof Error ? error.message : String(error ?? '');
}

/** Custom errors of ComputeMarket and of the token, in words. Others are shown by name with their arguments. */
export const REASONS: Record<string, string> = {
  InvalidPossession:
    'The proof was not made by this hot key for your wallet. Run the delegate command again.',
  DelegationExpired: 'The proof has expired. Run the delegate command again.',
  HotKeyTaken: 'This hot key already belongs to a node.',
  HotKeyExpired: "The node's hot key has expired. Delegate a new one.",
  InsufficientStake: 'The stake does not cover this many nodes. Raise the stake.',
  InsufficientCredit:
    'Less than that can be withdrawn now: the rest is in its challenge window. Lower the amount.',
  InsufficientEscrow: 'The escrow is too small for this.',
  NotOperator: 'Only the wallet that registered the node may do this.',
  NotRequester: 'Only the wallet that posted the job may do this.',
  NodeIsRetired: 'This node is retired.',
  UnknownNode: 'The contract knows no such node.',
  UnknownJob: 'The contract knows no such job.',
  JobIsClosed: 'This job is closed.',
  JobIsExiting: 'Its requester is already leaving this job.',
  TooEarly: 'It is too early for this.',
  IsPaused: 'New jobs or settlement are paused for now. A pause ends by itself; withdrawals go on.',
  RoundNotSettled: 'This round is not settled yet.',
  AlreadyAccepted: 'This round is accepted already.',
  RecordsPending: 'A recorded receipt of this job still waits to be paid or to lapse.',
  NothingToUnstake: 'Nothing is unbonding.',
  WithdrawalExpired: 'This withdrawal is out of date. Sign a new one.',
  ZeroAmount: 'The amount is zero.',
  ZeroAddress: 'The address is empty.',
  InvalidRecipient: 'This address cannot be paid.',
  ERC20InsufficientAllowance: 'The token has not been allowed for this amount. Allow it again.',
  ERC20InsufficientBalance: 'You do not hold enough tokens.',
};

function refused(error: ContractFunctionRevertedError): Failure {
  const name = error.data?.errorName;
  const args = (error.data?.args ?? []).map(String).join(', ');
  const exact = name ? `${name}(${args})` : (error.reason ?? error.shortMessage);
  const words = name ? REASONS[name] : undefined;
  const remedy: Remedy = name === 'ERC20InsufficientBalance' ? 'tokens' : 'retry';
  return failure('refused', 'The contract would refuse this', words ? `${words} [${exact}]` : exact, remedy);
}
