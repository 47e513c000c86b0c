/** A chain of few words for tests: JSON-RPC over HTTP, with blocks that the test makes and takes back. */

import { HttpResponse, http } from 'msw';
import { encodeErrorResult, type Hex, numberToHex } from 'viem';
import type { PrivateKeyAccount } from 'viem/accounts';
import { computeMarketAbi } from '@/chain/abi';

type Request = { id: number; method: string; params: unknown[] };
type RpcError = { code: number; message: string; data?: Hex };

const HASHES = ['0xaa', '0xbb', '0xcc'].map((start) => start.padEnd(66, '0') as Hex);
const SELF = `0x${'1'.repeat(40)}`;
const MARKET = `0x${'2'.repeat(40)}`;
const ZERO = `0x${'0'.repeat(64)}` as Hex;

const selectorOf = (params: unknown[]) => (params[0] as { data: Hex }).data.slice(0, 10) as Hex;

export class FakeChain {
  block = 10;
  finalized = 10;
  balance = 10n ** 18n;
  /** Of the wallet's own account: empty, as of every account that is no contract. */
  code: Hex = '0x';
  sent: Hex[] = [];
  asked: string[] = [];
  /** Blocks by transaction: a receipt exists for what is in here. */
  included = new Map<Hex, { block: number; ok: boolean }>();
  /** What contracts answer, by the call's selector; 1 where nothing is said. */
  answers = new Map<Hex, Hex>();
  /** Data of every transaction that the wallet was asked for. */
  data: Hex[] = [];
  /** What signs typed data in the wallet. */
  account: PrivateKeyAccount | null = null;
  /** What the wallet or the contract answers instead, by method. */
  errors = new Map<string, RpcError>();
  private replaced: { hash: Hex; cancel: boolean } | null = null;
  private readonly lost = new Set<Hex>();

  handler() {
    return http.post('http://localhost:8545/', async ({ request }) => {
      const body = (await request.json()) as Request | Request[];
      return HttpResponse.json(
        Array.isArray(body)
          ? await Promise.all(body.map((one) => this.answer(one)))
          : await this.answer(body),
      );
    });
  }

  /** Puts the last transaction into the next block. */
  mine({ ok = true } = {}): void {
    this.block++;
    const hash = this.sent.at(-1);
    if (hash) this.included.set(hash, { block: this.block, ok });
  }

  finalize(): void {
    this.finalized = this.block;
  }

  /** Another transaction of the same account and nonce takes the place of the last one. */
  replace({ cancel }: { cancel: boolean }): Hex {
    const old = this.sent.at(-1) as Hex;
    this.sent = [...this.sent.slice(0, -1), old, HASHES[2] as Hex];
    this.replaced = { hash: HASHES[2] as Hex, cancel };
    this.lost.add(old);
    this.mine();
    return HASHES[2] as Hex;
  }

  /** Makes the contract refuse with one of its own errors. */
  refuse(errorName: 'InsufficientStake', args: readonly [bigint, bigint]): void {
    const data = encodeErrorResult({ abi: computeMarketAbi, errorName, args });
    this.errors.set('eth_call', { code: 3, message: 'execution reverted', data });
  }

  private async answer({ id, method, params }: Request) {
    this.asked.push(method);
    const error = this.errors.get(method);
    return error
      ? { jsonrpc: '2.0', id, error }
      : { jsonrpc: '2.0', id, result: await this.result(method, params) };
  }

  private result(method: string, params: unknown[]): unknown {
    switch (method) {
      case 'eth_chainId':
        return numberToHex(31337);
      case 'eth_call':
        return this.answers.get(selectorOf(params)) ?? numberToHex(1, { size: 32 });
      case 'eth_getCode':
        return this.code;
      case 'eth_signTypedData_v4':
        return this.account?.signTypedData(JSON.parse(String(params[1])));
      case 'eth_estimateGas':
        return numberToHex(100_000);
      case 'eth_gasPrice':
        return numberToHex(10n ** 9n);
      case 'eth_getBalance':
        return numberToHex(this.balance);
      case 'eth_blockNumber':
        return numberToHex(this.block);
      case 'eth_getBlockByNumber':
        return this.blockAt(params[0] === 'finalized' ? this.finalized : this.block);
      case 'eth_sendTransaction':
        this.data.push((params[0] as { data: Hex }).data);
        this.sent.push(HASHES[this.sent.length] as Hex);
        return this.sent.at(-1);
      case 'eth_getTransactionByHash':
        return this.transaction(params[0] as Hex);
      case 'eth_getTransactionReceipt':
        return this.receipt(params[0] as Hex);
      default:
        throw new Error(`the test chain knows no ${method}`);
    }
  }

  private blockAt(number: number) {
    return {
      number: numberToHex(number),
      hash: ZERO,
      timestamp: '0x0',
      transactions: this.replaced ? [this.transaction(this.replaced.hash)] : [],
      gasLimit: '0x1',
      gasUsed: '0x0',
    };
  }

  private transaction(hash: Hex) {
    if (!this.sent.includes(hash) || this.lost.has(hash)) return null;
    const at = this.included.get(hash);
    return {
      hash,
      nonce: '0x0',
      from: SELF,
      to: this.replaced?.hash === hash && this.replaced.cancel ? SELF : MARKET,
      input: '0x',
      value: '0x0',
      type: '0x0',
      blockNumber: at ? numberToHex(at.block) : null,
      blockHash: at ? ZERO : null,
    };
  }

  private receipt(hash: Hex) {
    const at = this.included.get(hash);
    if (!at) return null;
    return {
      transactionHash: hash,
      blockNumber: numberToHex(at.block),
      blockHash: ZERO,
      status: at.ok ? '0x1' : '0x0',
      logs: [],
      type: '0x0',
      gasUsed: '0x1',
      cumulativeGasUsed: '0x1',
      effectiveGasPrice: '0x1',
      transactionIndex: '0x0',
      from: ZERO.slice(0, 42),
      to: ZERO.slice(0, 42),
      contractAddress: null,
    };
  }
}
