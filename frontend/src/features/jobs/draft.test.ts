import { describe, expect, it } from 'vitest';
import { DEFAULT_SPEC, missing, PRESETS, parseSpec, worstCase } from './draft';

describe('a specification typed as JSON', () => {
  it('takes the defaults for what it leaves out', () => {
    expect(parseSpec('{"rounds": {"rounds": 3}}').spec).toEqual({
      ...DEFAULT_SPEC,
      rounds: { ...DEFAULT_SPEC.rounds, rounds: 3 },
    });
  });

  it('keeps what this page does not know, so that the server can judge it', () => {
    expect(parseSpec('{"inner": {"warmup": 7}}').spec?.inner).toMatchObject({ warmup: 7, steps: 40 });
  });

  it.each(['', '[]', '3', '{"rounds": 3}', '{"rounds":'])('%s is none', (text) => {
    const { spec, error } = parseSpec(text);
    expect(spec).toBeNull();
    expect(error).not.toBe('');
  });
});

describe('the most that a job can cost', () => {
  it('is every node of every round at full quality', () => {
    expect(worstCase(DEFAULT_SPEC, 5n)).toBe(12n * 4n * 40n * 32n * 5n);
  });

  it('is nothing while a number is missing', () => {
    expect(worstCase({ ...DEFAULT_SPEC, rounds: { ...DEFAULT_SPEC.rounds, nodes: Number.NaN } }, 5n)).toBe(
      0n,
    );
  });
});

it('asks for a name and for the text of a text job', () => {
  const text = PRESETS[1]?.spec ?? DEFAULT_SPEC;
  expect(missing(DEFAULT_SPEC, ' ')).toMatch(/name/);
  expect(missing(text, 'x')).toMatch(/text file/);
  expect(missing({ ...text, data: { ...text.data, files: { text: 'ab' } } }, 'x')).toBeNull();
});
