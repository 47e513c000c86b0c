#!/usr/bin/env node
// Prints the path of a pinned Foundry binary (forge or anvil) of this platform. npm's own launchers need
// install scripts; the binaries themselves do not.
const path = require('node:path');

const tool = process.argv[2] ?? '';
const cpu = process.arch === 'x64' ? 'amd64' : process.arch;
const suffix = process.platform === 'win32' ? '.exe' : '';
try {
  const found = require.resolve(`@foundry-rs/${tool}-${process.platform}-${cpu}/package.json`);
  console.log(path.join(path.dirname(found), 'bin', tool + suffix));
} catch {
  console.error(`No ${tool || 'tool'} for ${process.platform}-${cpu} in contracts/node_modules.`);
  console.error('Usage: foundry.js forge|anvil, after `npm ci --ignore-scripts` in contracts/.');
  process.exit(1);
}
