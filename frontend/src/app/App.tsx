import { QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { lazy, type ReactNode, Suspense, useEffect, useState } from 'react';
import { Route, Routes } from 'react-router';
import { useConfig, WagmiProvider } from 'wagmi';
import { ApiError } from '@/api/client';
import { NetworkProvider, networkQuery, useNetwork } from '@/api/network';
import type { Network } from '@/api/types';
import { walletConfig } from '@/chain/config';
import { resumeTransactions } from '@/chain/transactions';
import { Skeleton } from '@/components/basics';
import { Logo } from '@/components/icons';
import { WalletDialogProvider } from '@/features/accounts/WalletDialog';
import { RealtimeProvider } from '@/realtime/RealtimeProvider';
import { Boundary } from './Boundary';
import { HomePage } from './pages/HomePage';
import { NotFoundPage } from './pages/NotFoundPage';
import { Shell } from './Shell';

const JobPage = lazy(() => import('./pages/JobPage').then((module) => ({ default: module.JobPage })));
const NewJobPage = lazy(() =>
  import('./pages/NewJobPage').then((module) => ({ default: module.NewJobPage })),
);
const OperatePage = lazy(() =>
  import('./pages/OperatePage').then((module) => ({ default: module.OperatePage })),
);
const OperatorsPage = lazy(() =>
  import('./pages/OperatorsPage').then((module) => ({ default: module.OperatorsPage })),
);
const OperatorPage = lazy(() =>
  import('./pages/OperatorPage').then((module) => ({ default: module.OperatorPage })),
);

export function App() {
  const [client] = useState(createQueryClient);
  return (
    <QueryClientProvider client={client}>
      <Start>
        <WalletDialogProvider>
          <Shell>
            <Boundary>
              <Suspense fallback={<PageSkeleton />}>
                <Pages />
              </Suspense>
            </Boundary>
          </Shell>
        </WalletDialogProvider>
      </Start>
    </QueryClientProvider>
  );
}

/** Asking again is for what may pass; a refusal stays one. */
function createQueryClient(): QueryClient {
  const passing = (error: Error) => !(error instanceof ApiError) || error.status === 0 || error.status >= 500;
  return new QueryClient({
    defaultOptions: { queries: { retry: (count, error) => count < 3 && passing(error) } },
  });
}

/** Every page needs to know which chain it speaks of, so that is asked first. */
function Start({ children }: { children: ReactNode }) {
  const { data, failureReason } = useQuery(networkQuery);
  const [network, setNetwork] = useState<Network | null>(null);
  if (data && network === null) setNetwork(data);
  if (!network) return <Opening error={failureReason} />;
  return <Providers network={network}>{children}</Providers>;
}

function Providers({ network, children }: { network: Network; children: ReactNode }) {
  const [config] = useState(() => walletConfig(network));
  return (
    <NetworkProvider network={network}>
      <WagmiProvider config={config}>
        <ResumeTransactions />
        <RealtimeProvider>{children}</RealtimeProvider>
      </WagmiProvider>
    </NetworkProvider>
  );
}

function ResumeTransactions() {
  const config = useConfig();
  const network = useNetwork();
  useEffect(() => resumeTransactions(config, network), [config, network]);
  return null;
}

function Opening({ error }: { error: Error | null }) {
  return (
    <main className="main">
      <p className="brand">
        <Logo /> HyperGPU
      </p>
      <p role="status" className="muted">
        {error ? `${error.message} Trying again…` : 'Reaching the server…'}
      </p>
      <Skeleton height={110} />
      <Skeleton height={320} />
    </main>
  );
}

function PageSkeleton() {
  return (
    <>
      <Skeleton height={60} width="50%" />
      <Skeleton height={110} />
      <Skeleton height={320} />
    </>
  );
}

function Pages() {
  return (
    <Routes>
      <Route index element={<HomePage />} />
      <Route path="jobs" element={<HomePage />} />
      <Route path="jobs/:id" element={<JobPage />} />
      <Route path="new" element={<NewJobPage />} />
      <Route path="operate" element={<OperatePage />} />
      <Route path="operators" element={<OperatorsPage />} />
      <Route path="operators/:address" element={<OperatorPage />} />
      <Route path="*" element={<NotFoundPage />} />
    </Routes>
  );
}
