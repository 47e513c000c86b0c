/**
 * A browser wallet for tests: announced by EIP-6963, with keys and policy in Node. The page gets only a provider.
 *
 * `prompts` records what a person would have been asked. A chain that the wallet does not know is refused with 4902
 * until the page adds it (EIP-3085).
 */
import { createWalletClient, http } from 'viem';
import { privateKeyToAccount } from 'viem/accounts';

const ACCOUNT_METHODS = ['eth_requestAccounts', 'wallet_requestPermissions'];

export class TestWallet {
  constructor(privateKey) {
    this.account = privateKeyToAccount(privateKey);
    this.chains = new Map([[1, null]]);
    this.chainId = 1;
    this.connected = false;
    this.rejectNext = false;
    this.prompts = [];
    this.awaiting = new Map();
  }

  get address() {
    return this.account.address;
  }

  /** Put the wallet into every page of a browser context. */
  async install(context) {
    await context.exposeFunction('__walletRpc', (method, params) => this.answer(method, params));
    await context.addInitScript(announce);
  }

  async answer(method, params = []) {
    try {
      return await this.handle(method, params);
    } catch (error) {
      return { error: { code: error.code ?? -32603, message: error.message } };
    }
  }

  async handle(method, params) {
    if (method === 'eth_chainId') return { result: hex(this.chainId) };
    if (method === 'eth_accounts') return { result: this.connected ? [this.address] : [] };
    if (method === 'wallet_getPermissions') return { result: this.connected ? [permission()] : [] };
    if (method === 'wallet_revokePermissions') {
      this.connected = false;
      return { result: null };
    }
    if (ACCOUNT_METHODS.includes(method)) {
      this.ask('connect', {});
      this.connected = true;
      return { result: method === 'eth_requestAccounts' ? [this.address] : [permission()] };
    }
    if (method === 'wallet_addEthereumChain') return this.addChain(params[0]);
    if (method === 'wallet_switchEthereumChain') return this.switchChain(Number(params[0].chainId));
    if (method === 'personal_sign') return this.signMessage(params[0]);
    if (method === 'eth_signTypedData_v4') return this.signTypedData(JSON.parse(params[1]));
    if (method === 'eth_sendTransaction') return this.send(params[0]);
    return { result: await this.rpc(method, params) };
  }

  /** Resolves when the person has been asked for `kind`; rejects after 30 s in which the page did not ask. */
  prompted(kind) {
    if (this.prompts.some((prompt) => prompt.kind === kind)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`the page never asked the wallet to: ${kind}`)), 30_000);
      this.awaiting.set(kind, () => resolve(clearTimeout(late)));
    });
  }

  ask(kind, detail) {
    this.prompts.push({ kind, ...detail });
    this.awaiting.get(kind)?.();
    if (this.rejectNext) {
      this.rejectNext = false;
      throw refusal(4001, 'User rejected the request.');
    }
  }

  addChain({ chainId, rpcUrls, chainName }) {
    this.ask('add chain', { chainId: Number(chainId), chainName });
    this.chains.set(Number(chainId), rpcUrls[0]);
    return this.switchChain(Number(chainId));
  }

  switchChain(chainId) {
    if (!this.chains.has(chainId)) throw refusal(4902, `Unrecognized chain ID ${hex(chainId)}.`);
    if (this.chainId === chainId) return { result: null };
    this.ask('switch chain', { chainId });
    this.chainId = chainId;
    return { result: null, emit: ['chainChanged', hex(chainId)] };
  }

  async signMessage(data) {
    this.ask('sign message', { text: Buffer.from(data.slice(2), 'hex').toString('utf8') });
    return { result: await this.account.signMessage({ message: { raw: data } }) };
  }

  async signTypedData({ domain, types, primaryType, message }) {
    this.ask('sign typed data', { primaryType, message });
    const { EIP712Domain: _, ...own } = types;
    return { result: await this.account.signTypedData({ domain, types: own, primaryType, message }) };
  }

  async send({ to, data, value, gas }) {
    this.ask('send', { to, data });
    const client = createWalletClient({ account: this.account, transport: http(this.url) });
    const number = (text) => (text === undefined ? undefined : BigInt(text));
    return {
      result: await client.sendTransaction({ chain: null, to, data, value: number(value), gas: number(gas) }),
    };
  }

  get url() {
    const url = this.chains.get(this.chainId);
    if (!url) throw refusal(4901, `The test wallet has no node for chain ${this.chainId}.`);
    return url;
  }

  async rpc(method, params) {
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
    const answer = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    const { result, error } = await answer.json();
    if (error) throw refusal(error.code, error.message);
    return result;
  }
}

const hex = (number) => `0x${number.toString(16)}`;
const permission = () => ({ parentCapability: 'eth_accounts' });
const refusal = (code, message) => Object.assign(new Error(message), { code });

/** Runs in the page: the provider, announced now and whenever the page asks. */
function announce() {
  const listeners = {};
  const provider = {
    on(event, listener) {
      (listeners[event] ??= []).push(listener);
      return provider;
    },
    removeListener(event, listener) {
      listeners[event] = (listeners[event] ?? []).filter((each) => each !== listener);
      return provider;
    },
    async request({ method, params }) {
      const { result, error, emit } = await window.__walletRpc(method, params);
      if (error) throw Object.assign(new Error(error.message), error);
      if (emit) for (const listener of listeners[emit[0]] ?? []) listener(...emit.slice(1));
      return result;
    },
  };
  const icon = 'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg"/>';
  const info = { uuid: crypto.randomUUID(), name: 'Test Wallet', rdns: 'test.wallet', icon };
  const detail = Object.freeze({ info, provider });
  const tell = () => dispatchEvent(new CustomEvent('eip6963:announceProvider', { detail }));
  addEventListener('eip6963:requestProvider', tell);
  tell();
}
