import { useMutation } from '@tanstack/react-query';
import type { Address } from 'viem';
import { createSiweMessage } from 'viem/siwe';
import { useConfig } from 'wagmi';
import { signMessage } from 'wagmi/actions';
import { fetchNonce, signIn } from '@/api/endpoints';
import { useNetwork } from '@/api/network';
import { useSetSession } from '@/api/session';

export const STATEMENT = 'Sign in to HyperGPU. This costs nothing and moves no funds.';

const VALID_MS = 5 * 60 * 1000;

/** The text that the wallet shows and signs (ERC-4361). */
export function signInMessage(facts: {
  address: Address;
  chainId: number;
  nonce: string;
  now: Date;
  origin: string;
  host: string;
}): string {
  return createSiweMessage({
    domain: facts.host,
    address: facts.address,
    statement: STATEMENT,
    uri: facts.origin,
    version: '1',
    chainId: facts.chainId,
    nonce: facts.nonce,
    issuedAt: facts.now,
    expirationTime: new Date(facts.now.getTime() + VALID_MS),
  });
}

/** Asks for a nonce, lets the wallet sign the message, and opens the session. */
export function useSignIn() {
  const config = useConfig();
  const network = useNetwork();
  const setSession = useSetSession();
  return useMutation({
    mutationFn: async (address: Address) => {
      const { nonce } = await fetchNonce();
      const { origin, host } = location;
      const message = signInMessage({
        address,
        chainId: network.chain.id,
        nonce,
        now: new Date(),
        origin,
        host,
      });
      const signature = await signMessage(config, { message, account: address });
      return signIn(message, signature);
    },
    onSuccess: ({ address }) => setSession(address),
  });
}
