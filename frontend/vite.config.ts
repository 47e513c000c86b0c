import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

const server = process.env.HYPERGPU_SERVER ?? 'http://127.0.0.1:8000';

export default defineConfig({
  // Django serves dist/ under its static URL and answers every page route with index.html.
  base: '/static/app/',
  plugins: [react()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  server: { proxy: { '/api': server, '/ws': { target: server, ws: true } } },
  build: {
    target: 'es2022',
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            {
              name: 'chain',
              test: /node_modules[\\/](viem|wagmi|@wagmi|ox|abitype|@noble|@scure|mipd|zustand|eventemitter3)/,
            },
            { name: 'react', test: /node_modules[\\/](react|react-dom|react-router|scheduler|@tanstack)/ },
          ],
        },
      },
    },
  },
  test: {
    restoreMocks: true,
    testTimeout: 20_000,
    projects: [
      // Plain modules need no browser; what touches the page is named *.test.tsx or *.dom.test.ts.
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts'],
          exclude: ['src/**/*.dom.test.ts'],
          environment: 'node',
        },
      },
      {
        extends: true,
        test: {
          name: 'page',
          include: ['src/**/*.test.tsx', 'src/**/*.dom.test.ts'],
          environment: 'jsdom',
          setupFiles: ['src/test/setup.ts'],
        },
      },
    ],
  },
});
