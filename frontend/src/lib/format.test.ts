import { describe, expect, it } from 'vitest';
import { accuracy, age, bytes, count, duration, loss, milliseconds, quality, short } from './format';
import { formatMetric, towards } from './metric';

const plain = (text: string) => text.replace(/[\u00a0\u202f]/g, ' ');

describe('numbers as people read them', () => {
  it.each([
    [count(1_234_567), '1 234 567'],
    [loss(2.3456), '2.346'],
    [loss(0.00012), '0.00012'],
    [loss(123.4), '123.4'],
    [accuracy(0.953), '95.3 %'],
    [accuracy(0.9967), '99.67 %'],
    [quality(10_000), '100 %'],
    [quality(8317), '83.17 %'],
    [bytes(19_876), '19.9 kB'],
    [bytes(512), '512 B'],
    [milliseconds(8.24), '8.2 ms'],
    [duration(4.2), '4.2 s'],
    [duration(200), '3 min 20 s'],
    [duration(86_400), '1 d'],
    [age(900), 'just now'],
    [age(65_000), '1 min ago'],
    [short('0xC2418a938F698917A7cbfA06a1d1f74f75Ad3e39'), '0xC241…3e39'],
    [formatMetric(null, 'loss'), '–'],
  ])('%s', (told, expected) => {
    expect(plain(told)).toBe(expected);
  });

  it('knows how far a metric has come, downward as upward', () => {
    expect(towards(0.1, 0.525, 0.95)).toBeCloseTo(50);
    expect(towards(4, 3, 2)).toBeCloseTo(50);
    expect([towards(4, 1, 2), towards(null, 1, 2), towards(1, 1, 1)]).toEqual([100, 0, 0]);
  });
});
