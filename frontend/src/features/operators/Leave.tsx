import { useState } from 'react';
import type { Address } from 'viem';
import { useReadContract } from 'wagmi';
import { useNetwork } from '@/api/network';
import type { Node } from '@/api/types';
import { computeMarketAbi } from '@/chain/abi';
import { requestUnstake, retireNode, unstake } from '@/chain/contracts';
import { useSend, useTransaction } from '@/chain/hooks';
import { type Call, isPending } from '@/chain/transactions';
import { Amount, Panel } from '@/components/basics';
import { TransactionPanel } from '@/components/TransactionPanel';
import { localTime } from '@/lib/format';
import { formatUnits } from '@/lib/money';
import { useNow } from '@/lib/useNow';

/** Takes a node out of the market for good. Its credit stays; its stake can then be asked back. */
export function RetireNode({ node }: { node: Node }) {
  const network = useNetwork();
  return (
    <div className="stack">
      <p className="small">
        A retired node takes no more work and cannot come back; its machine can register again as a new node.
        Its credit stays yours to withdraw, and the stake that it bound can be asked back.
      </p>
      <Act
        id={`retire ${node.id}`}
        title={`Retire node ${node.id}`}
        call={retireNode(network, node.id)}
        testId="retire-submit"
      />
    </div>
  );
}

/** The way out for stake that no active node binds: ask for it, wait the unbonding time, take it. */
export function StakeBack({ operator }: { operator: Address }) {
  const network = useNetwork();
  const now = useNow();
  const { data } = useReadContract({
    address: network.contracts.market,
    abi: computeMarketAbi,
    chainId: network.chain.id,
    functionName: 'getOperator',
    args: [operator],
    query: { refetchInterval: 5_000 },
  });
  if (!data) return null;
  const bound = BigInt(network.min_stake) * BigInt(data.activeNodes);
  const free = data.stake > bound ? data.stake - bound : 0n;
  const available = Number(data.unstakeAvailableAt) * 1000;
  const money = (amount: bigint) => `${formatUnits(amount, network.token.decimals)} ${network.token.symbol}`;
  const asking = `ask stake ${operator}`;
  const taking = `take stake ${operator}`;
  if (free === 0n && data.unbonding === 0n) return null;
  return (
    <Panel title="Stake to take back">
      <div className="stack">
        {free > 0n ? (
          <>
            <p>
              <Amount base={free} /> of your stake is bound by no active node.
            </p>
            <Act
              id={asking}
              title={`Ask ${money(free)} back`}
              call={requestUnstake(network, free)}
              testId="unstake-request"
            />
          </>
        ) : null}
        {data.unbonding > 0n ? (
          <>
            <p>
              <Amount base={data.unbonding} />{' '}
              {available > now ? `can be taken from ${localTime(available)} on` : 'can be taken now'}.
            </p>
            <Act
              id={taking}
              title={`Take ${money(data.unbonding)}`}
              call={unstake(network)}
              disabled={available > now}
              testId="unstake-submit"
            />
          </>
        ) : null}
      </div>
    </Panel>
  );
}

type ActProps = { id: string; title: string; call: Call; testId: string; disabled?: boolean };

function Act({ id, title, call, testId, disabled }: ActProps) {
  const send = useSend();
  const transaction = useTransaction(id);
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    await send({ key: id, title, call });
    setBusy(false);
  };
  const pending = busy || (transaction !== undefined && isPending(transaction));
  return (
    <>
      <div>
        <button
          type="button"
          className="button"
          disabled={disabled || pending}
          onClick={run}
          data-testid={testId}
        >
          {pending ? 'In progress…' : title}
        </button>
      </div>
      <TransactionPanel id={id} retry={run} />
    </>
  );
}
