/** Imports go one way: app -> features -> {components, lib, api, realtime, chain}, and no feature imports a feature. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, it } from 'vitest';

const source = resolve(import.meta.dirname);
const LOWER = ['components', 'lib', 'api', 'realtime', 'chain'];

type Import = { from: string; to: string; file: string };

/** `features/jobs` for a file of a feature, else the first folder. */
function partOf(path: string): string {
  const [first = '', second = ''] = path.split('/');
  return first === 'features' ? `${first}/${second}` : first;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(source, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].flatMap(([, target = '']) => {
    const path = target.startsWith('@/')
      ? target.slice(2)
      : target.startsWith('.')
        ? relative(source, join(source, dirname(file), target))
        : null;
    return path === null || path.startsWith('..') ? [] : [{ from: partOf(file), to: partOf(path), file }];
  });
}

const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter(
  (file) => /\.tsx?$/.test(file) && !/\.test\.|^test\//.test(file),
);
const imports = files.flatMap(importsOf).filter(({ from, to }) => from !== to);

it('reads the whole page', () => {
  expect(files.length).toBeGreaterThan(50);
  expect(imports.length).toBeGreaterThan(100);
});

it('has no feature that imports a feature', () => {
  expect(
    imports.filter(({ from, to }) => from.startsWith('features/') && to.startsWith('features/')),
  ).toEqual([]);
});

it('has features that import only what lies below them', () => {
  const wrong = imports.filter(({ from, to }) => from.startsWith('features/') && !LOWER.includes(to));
  expect(wrong).toEqual([]);
});

it('has no lower part that imports a feature or the app', () => {
  const wrong = imports.filter(
    ({ from, to }) => LOWER.includes(from) && (to.startsWith('features/') || to === 'app'),
  );
  expect(wrong).toEqual([]);
});

it('draws the words it shows on no outside host', () => {
  const outside = files.filter((file) =>
    /https?:\/\/(?!www\.w3\.org)/.test(
      readFileSync(join(source, file), 'utf8').replace(/^\s*(\/\/|\*|\/\*).*$/gm, ''),
    ),
  );
  expect(outside).toEqual([]);
});
