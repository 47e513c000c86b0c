import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatUnits, parseUnits, percent, reward, sum } from './money';

const amounts = fc.bigInt({ min: 0n, max: 2n ** 128n });
const decimals = fc.integer({ min: 0, max: 18 });

describe('an amount', () => {
  it.each([
    ['0', '0.00'],
    ['1', '0.000001'],
    ['6400', '0.0064'],
    ['1250000', '1.25'],
    ['100000000', '100.00'],
    ['1234567890123', '1\u202f234\u202f567.890123'],
    ['-2500000', '−2.50'],
  ])('%s base units of six decimals read %s', (base, text) => {
    expect(formatUnits(base, 6)).toBe(text);
  });

  it('is written exactly and read back exactly, never as an exponent', () => {
    fc.assert(
      fc.property(amounts, decimals, fc.integer({ min: 0, max: 18 }), (base, places, least) => {
        const text = formatUnits(base, places, least);
        expect(text).not.toMatch(/e/i);
        expect(parseUnits(text, places)).toBe(base);
      }),
    );
  });

  it.each(['', '.', 'abc', '-1', '1e6', '1.2.3', '0x10', '1.0000001', 'NaN'])('%s is none', (text) => {
    expect(parseUnits(text, 6)).toBeNull();
  });

  it.each([
    ['5', 5_000_000n],
    ['0,25', 250_000n],
    ['.5', 500_000n],
    ['1 000', 1_000_000_000n],
    ['7.', 7_000_000n],
  ])('%s is read', (text, base) => {
    expect(parseUnits(text, 6)).toBe(base);
  });
});

describe('sums and shares', () => {
  it('never lose a unit', () => {
    fc.assert(
      fc.property(fc.array(amounts), (list) => {
        expect(sum(list.map(String))).toBe(list.reduce((total, amount) => total + amount, 0n));
      }),
    );
  });

  it('give a share between 0 and 100', () => {
    expect(percent('1', '3')).toBe(33.33);
    expect([percent('5', '0'), percent('9', '3')]).toEqual([0, 100]);
  });

  it('never pay more than units times rate', () => {
    fc.assert(
      fc.property(amounts, amounts, fc.bigInt({ min: 0n, max: 10_000n }), (units, rate, quality) => {
        expect(reward(units, rate, quality)).toBeLessThanOrEqual(units * rate);
      }),
    );
  });
});
