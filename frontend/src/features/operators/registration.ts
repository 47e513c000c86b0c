/** A node's registration as its agent printed it, read from a link or typed, and checked before a wallet opens. */

import { type Address, type Hex, isAddress, isHex, recoverTypedDataAddress, size } from 'viem';
import type { Network } from '@/api/types';
import { domainOf, TYPES } from '@/chain/typedData';

export type RegistrationForm = { hotKey: string; possession: string; expiresAt: string };
export type Registration = { hotKey: Address; possession: Hex; expiresAt: bigint };

export function registrationFromLink(query: URLSearchParams): RegistrationForm {
  return {
    hotKey: query.get('hot_key') ?? '',
    possession: query.get('possession') ?? '',
    expiresAt: query.get('expires_at') ?? '',
  };
}

export type FormErrors = Partial<Record<keyof RegistrationForm, string>>;

/** The parsed registration, or what is wrong with each field. Empty fields are not yet wrong. */
export function parseRegistration(
  form: RegistrationForm,
  now: number,
): { value: Registration | null; errors: FormErrors } {
  const errors: FormErrors = {};
  const hotKey = form.hotKey.trim();
  const possession = form.possession.trim();
  const seconds = form.expiresAt.trim();
  if (hotKey && !isAddress(hotKey, { strict: false }))
    errors.hotKey = 'This is not an address: 0x and 40 hex digits.';
  if (possession && !(isHex(possession) && size(possession) === 65)) {
    errors.possession = 'This is not a signature: 0x and 130 hex digits.';
  }
  if (seconds && !/^\d{1,20}$/.test(seconds)) errors.expiresAt = 'This is not a time in unix seconds.';
  else if (seconds && Number(seconds) * 1000 <= now)
    errors.expiresAt = 'This time is past. Run the delegate command again.';
  const complete = hotKey && possession && seconds && Object.keys(errors).length === 0;
  return {
    value: complete
      ? { hotKey: hotKey as Address, possession: possession as Hex, expiresAt: BigInt(seconds) }
      : null,
    errors,
  };
}

/** Whether the hot key itself made the proof for `operator`: what the contract will check, said before any gas is spent. */
export async function provesPossession(
  network: Network,
  registration: Registration,
  operator: Address,
  nonce: bigint,
): Promise<boolean> {
  const { hotKey, possession, expiresAt } = registration;
  try {
    const signer = await recoverTypedDataAddress({
      domain: domainOf(network),
      types: { Delegation: TYPES.Delegation },
      primaryType: 'Delegation',
      message: { operator, hotKey, expiresAt, nonce },
      signature: possession,
    });
    return signer.toLowerCase() === hotKey.toLowerCase();
  } catch {
    return false;
  }
}

/** Stake still missing for one more node: the contract wants `minStake` for each active node. */
export function missingStake(minStake: bigint, stake: bigint, activeNodes: number): bigint {
  const required = minStake * BigInt(activeNodes + 1);
  return required > stake ? required - stake : 0n;
}
