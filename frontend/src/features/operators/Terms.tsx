import { useReadContract } from 'wagmi';
import { useNetwork } from '@/api/network';
import { computeMarketAbi } from '@/chain/abi';
import { Address, Amount, Panel } from '@/components/basics';
import { duration } from '@/lib/format';

/** What an operator agrees to, before any signature: the contract's own terms. */
export function Terms() {
  const { chain, contracts, min_stake } = useNetwork();
  const { data: terms } = useReadContract({
    address: contracts.market,
    abi: computeMarketAbi,
    chainId: chain.id,
    functionName: 'terms',
    query: { staleTime: 60_000 },
  });
  return (
    <Panel title="Before you stake">
      <dl className="terms">
        <dt>Stake</dt>
        <dd>
          <Amount base={min_stake} /> for each node, locked while it is active.
        </dd>
        <dt>Pay</dt>
        <dd>
          Samples × your rate × quality, the median of what independent attestors found, credited when the
          round settles.
        </dd>
        <dt>Withdrawing</dt>
        <dd>
          Free once it can no longer be disputed
          {terms ? `, ${duration(Number(terms.challengeWindow))} after it was marked` : ''}; before, up to{' '}
          {terms ? `${Number(terms.instantShare) / 100} %` : 'a part'} of your stake at once.
        </dd>
        <dt>At risk</dt>
        <dd>
          A proven fault takes the pay back and, on top, at most <Amount base={min_stake} /> and the pay
          again: from credit first, then stake, also while it unbonds.
        </dd>
        <dt>Getting out</dt>
        <dd>
          Retire the node, ask for the stake, take it back after{' '}
          {terms ? duration(Number(terms.unbondingTime)) : 'the unbonding time'}.
        </dd>
        <dt>The hot key</dt>
        <dd>
          Signs requests and receipts until it expires. It can neither move the stake nor withdraw. Nobody
          from HyperGPU ever asks for a key.
        </dd>
        <dt>Contract</dt>
        <dd>
          <Address value={contracts.market} />
        </dd>
      </dl>
    </Panel>
  );
}
