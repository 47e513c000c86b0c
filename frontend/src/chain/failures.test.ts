import {
  BaseError,
  ContractFunctionExecutionError,
  ContractFunctionRevertedError,
  encodeErrorResult,
  UserRejectedRequestError,
} from 'viem';
import { describe, expect, it } from 'vitest';
import { computeMarketAbi, testUsdAbi } from './abi';
import { describeFailure, noGas, REASONS, wrongChain } from './failures';

const facts = { chain: 'Local test chain' };
const wallet = (code: number, message = '') => Object.assign(new Error(message), { code });

function revert(errorName: string, args: unknown[]) {
  const data = encodeErrorResult({ abi: computeMarketAbi, errorName, args } as Parameters<
    typeof encodeErrorResult
  >[0]);
  const cause = new ContractFunctionRevertedError({ abi: computeMarketAbi, data, functionName: 'withdraw' });
  return new ContractFunctionExecutionError(cause, {
    abi: computeMarketAbi,
    functionName: 'withdraw',
    args: [],
  });
}

describe('what went wrong, in words', () => {
  it.each([
    ['a refusal by code', wallet(4001), 'declined', 'You declined the request'],
    [
      'a refusal by class',
      new UserRejectedRequestError(new Error('no')),
      'declined',
      'You declined the request',
    ],
    [
      'a refusal deep inside',
      new BaseError('outer', { cause: wallet(4001) }),
      'declined',
      'You declined the request',
    ],
    [
      'a refusal by words',
      new Error('MetaMask Tx Signature: User denied transaction signature.'),
      'declined',
      'You declined the request',
    ],
    ['another open request', wallet(-32002), 'busy', 'Your wallet already has a request open'],
    [
      'another chain',
      new Error('The current chain of the wallet (id: 1) does not match the target chain'),
      'chain',
      'Your wallet is on another chain',
    ],
    ['no gas', new Error('insufficient funds for gas * price + value'), 'gas', 'Not enough for gas'],
    [
      'no chain',
      new Error('HTTP request failed. fetch failed'),
      'unreachable',
      'The chain cannot be reached',
    ],
    ['a locked wallet', new Error('Wallet is locked'), 'locked', 'Your wallet is locked'],
    ['the unknown', new Error('Teapot'), 'unknown', 'This did not work'],
  ])('%s', (_, error, kind, title) => {
    expect(describeFailure(error, facts)).toMatchObject({ kind, title });
  });

  it("tells the contract's own errors with their numbers", () => {
    const failure = describeFailure(revert('InsufficientCredit', [1, 237_200n, 5n]), facts);
    expect(failure.kind).toBe('refused');
    expect(failure.body).toBe(
      'Less than that can be withdrawn now: the rest is in its challenge window. Lower the amount. [InsufficientCredit(1, 237200, 5)]',
    );
  });

  it('shows an error that it has no words for by name', () => {
    expect(describeFailure(revert('AlreadyPaid', [7n, 3n, 12]), facts).body).toBe('AlreadyPaid(7, 3, 12)');
  });

  it('names what to do', () => {
    expect(wrongChain('Monad')).toMatchObject({ remedy: 'switch' });
    expect(noGas(2_000_000_000_000_000n, 500_000_000_000_000n, 'MON').body).toContain('0.0015 MON more');
  });
});

it('has words only for errors that there are', () => {
  const known = [...computeMarketAbi, ...testUsdAbi].flatMap((item) =>
    item.type === 'error' ? item.name : [],
  );
  expect(Object.keys(REASONS).filter((name) => !known.includes(name as never))).toEqual([]);
});
