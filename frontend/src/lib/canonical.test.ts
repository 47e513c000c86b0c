import { describe, expect, it } from 'vitest';
import { DEFAULT_SPEC } from '@/features/jobs/draft';
import vectors from '../../../tests/vectors/protocol.json';
import { canonicalJson, sha256Hex } from './canonical';

describe('canonical JSON', () => {
  it('is what every other language writes', async () => {
    const { value, bytes, sha256 } = vectors.canonical;
    expect(canonicalJson(value)).toBe(bytes);
    expect(await sha256Hex(canonicalJson(value))).toBe(sha256);
  });

  it("hashes the default specification as the protocol does, so the form's defaults are the protocol's", async () => {
    expect(DEFAULT_SPEC).toEqual(vectors.spec.value);
    expect(await sha256Hex(canonicalJson(DEFAULT_SPEC))).toBe(vectors.spec.sha256);
  });

  it('refuses what JSON cannot hold', () => {
    expect(() => canonicalJson({ value: Number.NaN })).toThrow(TypeError);
  });
});
