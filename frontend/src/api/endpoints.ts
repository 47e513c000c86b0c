/** One function for each call of the HTTP interface that the page makes. */

import { get, post } from './client';
import type {
  Bid,
  BidRequest,
  Deterrence,
  EventPage,
  Job,
  JobCheck,
  JobList,
  JobRequest,
  JobSnapshot,
  Measurement,
  Network,
  OperatorList,
  OperatorSnapshot,
  PaymentList,
  Proposals,
  Settlement,
} from './types';

export const fetchNetwork = (signal?: AbortSignal) => get<Network>('/api/v1/network', signal);

export const fetchJobs = () => get<JobList>('/api/v1/jobs');
export const fetchPayments = () => get<PaymentList>('/api/v1/payments');
export const fetchJob = (id: number) => get<JobSnapshot>(`/api/v1/jobs/${id}`);
/** The best first. */
export const fetchProposals = (jobId: number, goal: Job['goal'], signal?: AbortSignal) =>
  get<Proposals>(`/api/v1/jobs/${jobId}/proposals?goal=${goal}`, signal);

export const checkJob = (request: JobRequest, signal?: AbortSignal) =>
  post<JobCheck>('/api/v1/jobs/check', { body: request, signal });
export const draftJob = (request: JobRequest) =>
  post<{ job: Job; transaction: { function: string; args: string[] } }>('/api/v1/jobs', { body: request });
export const stopJob = (id: number) => post<{ job: Job }>(`/api/v1/jobs/${id}/stop`);
export const uploadDataset = (file: File) =>
  post<{ sha256: string; size: number }>('/api/v1/datasets', {
    raw: file,
    headers: { 'X-Filename': encodeURIComponent(file.name), 'Content-Type': 'application/octet-stream' },
  });

export const fetchSettlement = (job: number, round: number) =>
  get<Settlement>(`/api/v1/jobs/${job}/rounds/${round}/settlement`);

export const fetchDeterrence = (job: number) => get<Deterrence>(`/api/v1/jobs/${job}/deterrence`);

export const fetchOperators = () => get<OperatorList>('/api/v1/operators');
export const fetchOperator = (address: string) => get<OperatorSnapshot>(`/api/v1/operators/${address}`);
export const fetchMeasurements = (node: number) =>
  get<{ measurements: Measurement[] }>(`/api/v1/nodes/${node}/measurements`);
export const fetchPairs = () => get<{ measurements: Measurement[] }>('/api/v1/pairs');
export const postBid = (bid: BidRequest) => post<{ bid: Bid }>('/api/v1/bids', { body: bid });

export const fetchEvents = (topic: string, since: number) =>
  get<EventPage>(`/api/v1/events?topic=${encodeURIComponent(topic)}&since=${since}&limit=500`);

export const fetchSession = () => get<{ address: string | null }>('/api/v1/auth/session');
export const fetchNonce = () => post<{ nonce: string }>('/api/v1/auth/nonce');
export const signIn = (message: string, signature: string) =>
  post<{ address: string }>('/api/v1/auth/login', { body: { message, signature } });
export const signOut = () => post<Record<string, never>>('/api/v1/auth/logout');

export const artifactUrl = (sha256: string) => `/api/v1/artifacts/${sha256}`;
