import { queryOptions, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { fetchSession, signOut } from './endpoints';

export const sessionQuery = queryOptions({ queryKey: ['session'], queryFn: fetchSession, staleTime: 60_000 });

/** The address that is signed in, null when nobody is, undefined while that is not known. */
export function useSession(): string | null | undefined {
  return useQuery(sessionQuery).data?.address;
}

export function useSetSession(): (address: string | null) => void {
  const client = useQueryClient();
  return (address) => client.setQueryData(sessionQuery.queryKey, { address });
}

export function useSignOut() {
  const set = useSetSession();
  return useMutation({ mutationFn: signOut, onSuccess: () => set(null) });
}
