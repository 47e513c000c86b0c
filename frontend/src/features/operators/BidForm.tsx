import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { useConfig, useReadContract } from 'wagmi';
import { signTypedData } from 'wagmi/actions';
import { ApiError } from '@/api/client';
import { postBid } from '@/api/endpoints';
import { useNetwork } from '@/api/network';
import type { Bid, Node } from '@/api/types';
import { computeMarketAbi } from '@/chain/abi';
import { describeFailure } from '@/chain/failures';
import { useWallet } from '@/chain/hooks';
import { domainOf, TYPES } from '@/chain/typedData';
import { Amount, Rate } from '@/components/basics';
import { Field, Select } from '@/components/Field';
import { Notice } from '@/components/Notice';
import { SwitchChain } from '@/components/TransactionPanel';
import { count, localTime } from '@/lib/format';
import { formatUnits, parseUnits } from '@/lib/money';

const DAY = 24 * 3600;
const PER_MILLION = 1_000_000n;
/** The contract keeps a seat's capacity in 48 bits. */
const MOST_UNITS = 2n ** 48n - 1n;

/** A price in tokens per million samples, as base units per sample; null when it is none or falls between them. */
export function rateOf(perMillion: string, decimals: number): bigint | null {
  const amount = parseUnits(perMillion, decimals);
  return amount === null || amount === 0n || amount % PER_MILLION !== 0n ? null : amount / PER_MILLION;
}

/** A standing offer of one node to any job, signed by the operator's wallet. It costs no gas and can be replaced. */
export function BidForm({ node, bids }: { node: Node; bids: readonly Bid[] }) {
  const network = useNetwork();
  const config = useConfig();
  const wallet = useWallet();
  const { token, chain, contracts } = network;
  const [price, setPrice] = useState('5');
  const [capacity, setCapacity] = useState('1000000');
  const [days, setDays] = useState('7');
  const nonce = useReadContract({
    address: contracts.market,
    abi: computeMarketAbi,
    chainId: chain.id,
    functionName: 'bidNonce',
    args: [node.id],
  });
  const rate = rateOf(price, token.decimals);
  const units = /^\d{1,15}$/.test(capacity.trim()) ? BigInt(capacity.trim()) : null;
  const post = useMutation({
    mutationFn: async () => {
      const expiresAt = Math.floor(Date.now() / 1000) + Number(days) * DAY;
      const bid = {
        jobId: 0n,
        nodeId: node.id,
        rate: rate as bigint,
        capacity: units as bigint,
        expiresAt: BigInt(expiresAt),
        nonce: nonce.data as bigint,
      };
      const signature = await signTypedData(config, {
        domain: domainOf(network),
        types: { Bid: TYPES.Bid },
        primaryType: 'Bid',
        message: bid,
      });
      return postBid({
        job_id: 0,
        node_id: node.id,
        rate: String(rate),
        capacity: Number(units),
        expires_at: expiresAt,
        nonce: Number(nonce.data),
        signature,
      });
    },
  });
  const told =
    post.error instanceof ApiError
      ? { title: 'The bid was not taken', body: `${post.error.message} [${post.error.code}]` }
      : post.error
        ? describeFailure(post.error, { chain: chain.name })
        : null;
  const ready =
    rate !== null &&
    units !== null &&
    units > 0n &&
    units <= MOST_UNITS &&
    nonce.data !== undefined &&
    wallet.rightChain;
  return (
    <div className="stack">
      <OpenBids bids={bids} />
      <div className="fields">
        <Field
          label="Price"
          unit={`${token.symbol} / million samples`}
          inputMode="decimal"
          value={price}
          onChange={(event) => setPrice(event.target.value)}
          error={
            rate === null
              ? `A price above zero in steps of ${formatUnits(PER_MILLION, token.decimals)}.`
              : undefined
          }
          hint={rate === null ? undefined : `${rate} base units per sample, at full quality`}
          data-testid="bid-price"
        />
        <Field
          label="Samples per round, at most"
          inputMode="numeric"
          value={capacity}
          onChange={(event) => setCapacity(event.target.value)}
          error={
            units === null || units === 0n || units > MOST_UNITS
              ? `A whole number above zero, at most ${MOST_UNITS}.`
              : undefined
          }
          data-testid="bid-capacity"
        />
        <Select
          label="Good for"
          value={days}
          onChange={(event) => setDays(event.target.value)}
          options={[
            { value: '1', label: '1 day' },
            { value: '7', label: '7 days' },
            { value: '30', label: '30 days' },
          ]}
        />
      </div>
      {rate !== null && units !== null ? (
        <p className="small">
          Your wallet will show a <strong>Bid</strong>: node {node.id}, any job (0), rate {String(rate)},
          capacity {count(Number(units))}, bid number {String(nonce.data ?? '…')}. A round of{' '}
          {count(Number(units))} samples would earn at most <Amount base={rate * units} />.
        </p>
      ) : null}
      {told ? (
        <Notice tone="warn" title={told.title}>
          {told.body}
        </Notice>
      ) : null}
      {post.isSuccess ? (
        <Notice tone="ok" title="Your bid stands">
          Jobs that pay at least this rate can seat the node from now on.
        </Notice>
      ) : null}
      <div className="row">
        <button
          type="button"
          className="button primary"
          disabled={!ready || post.isPending}
          onClick={() => post.mutate()}
          data-testid="bid-submit"
        >
          {post.isPending ? 'Sign in your wallet…' : 'Sign and post the bid'}
        </button>
        {wallet.address && !wallet.rightChain ? <SwitchChain /> : null}
      </div>
    </div>
  );
}

function OpenBids({ bids }: { bids: readonly Bid[] }) {
  const open = bids.filter((bid) => bid.state === 'open' && Date.parse(bid.expires_at) > Date.now());
  if (open.length === 0) return null;
  return (
    <ul className="small" data-testid="open-bids">
      {open.map((bid) => (
        <li key={bid.id}>
          {bid.job_id === 0 ? 'Standing bid' : `Bid for job ${bid.job_id}`}: <Rate rate={bid.rate} />, until{' '}
          {localTime(bid.expires_at)}
        </li>
      ))}
    </ul>
  );
}
