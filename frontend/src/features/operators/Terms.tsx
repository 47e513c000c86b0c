import { useReadContract } from 'wagmi';
import { useNetwork } from '@/api/network';
import { computeMarketAbi } from '@/chain/abi';
import { Address, Amount, Panel } from '@/components/basics';
import { duration } from '@/lib/format';

/** What an operator agrees to, before any signature: the contract's own terms. */
export function Terms() {
  const { chain, contracts, min_stake } = useNetwork();
  const unbonding = useReadContract({
    address: contracts.market,
    abi: computeMarketAbi,
    chainId: chain.id,
    functionName: 'unbondingTime',
    query: { staleTime: Number.POSITIVE_INFINITY },
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
          Samples × your rate × quality, credited when the round settles. You withdraw whenever you like.
        </dd>
        <dt>Getting out</dt>
        <dd>
          Retire the node, ask for the stake, take it back after{' '}
          {unbonding.data === undefined ? 'the unbonding time' : duration(Number(unbonding.data))}.
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
