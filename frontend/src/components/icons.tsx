import type { ReactNode } from 'react';

function Icon({ children }: { children: ReactNode }) {
  return (
    <svg
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.6"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const CopyIcon = () => (
  <Icon>
    <rect x="5.5" y="5.5" width="8" height="8" rx="1.5" />
    <path d="M10.5 5.5v-1.5a1.5 1.5 0 0 0-1.5-1.5H4A1.5 1.5 0 0 0 2.5 4v5A1.5 1.5 0 0 0 4 10.5h1.5" />
  </Icon>
);

export const CheckIcon = () => (
  <Icon>
    <path d="M3 8.5 6.5 12 13 4.5" />
  </Icon>
);

export const CloseIcon = () => (
  <Icon>
    <path d="m4 4 8 8M12 4l-8 8" />
  </Icon>
);

export const WalletIcon = () => (
  <Icon>
    <path d="M13 5.5H4A1.5 1.5 0 0 1 4 2.5h7.5v3M2.5 4v8A1.5 1.5 0 0 0 4 13.5h9v-8" />
    <circle cx="10.5" cy="9.5" r=".6" fill="currentColor" />
  </Icon>
);

export const Logo = () => (
  <svg viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="7" fill="var(--accent)" />
    <path d="M10 8v16M22 8v16M10 16h12" stroke="var(--on-accent)" strokeWidth="2.4" fill="none" />
    <g fill="var(--on-accent)">
      <circle cx="10" cy="8" r="3.2" />
      <circle cx="22" cy="8" r="3.2" />
      <circle cx="10" cy="24" r="3.2" />
      <circle cx="22" cy="24" r="3.2" />
    </g>
    <circle cx="16" cy="16" r="3.4" fill="var(--ok-fill)" stroke="var(--accent)" strokeWidth="1.4" />
  </svg>
);
