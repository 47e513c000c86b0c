import { useNetwork } from '@/api/network';
import type { Job, Round } from '@/api/types';
import { acceptRounds } from '@/chain/contracts';
import { useSend, useTransaction, useWallet } from '@/chain/hooks';
import { isPending } from '@/chain/transactions';
import { Panel } from '@/components/basics';
import { TransactionPanel } from '@/components/TransactionPanel';
import { plural } from '@/lib/format';

/** As many as fit one transaction with ease. */
const MOST = 50;

/** The requester's word that it is content: settled rounds become final, their credit free, before the window is over. */
export function AcceptRounds({ job, rounds }: { job: Job; rounds: readonly Round[] }) {
  const network = useNetwork();
  const wallet = useWallet();
  const send = useSend();
  const key = `accept ${job.id}`;
  const transaction = useTransaction(key);
  const open = rounds
    .filter((round) => round.settled_at !== null && round.accepted_at === null)
    .map((round) => round.number)
    .sort((a, b) => a - b)
    .slice(0, MOST);
  const mine = wallet.address?.toLowerCase() === job.requester.toLowerCase();
  if (job.chain_id === null || !mine || (open.length === 0 && !transaction)) return null;
  const title = `Accept ${plural(open.length, 'settled round')}`;
  const call = acceptRounds(network, job.chain_id, open);
  const run = () => send({ key, title, call });
  return (
    <Panel title="Rounds to accept">
      <div className="stack">
        {open.length ? (
          <p className="small">
            {open.length === 1 ? `Round ${open[0]} is` : `Rounds ${open[0]} to ${open.at(-1)} are`} settled.
            If you are content, accept: operators get their money at once, and the quality can no longer be
            disputed. If you do nothing, the same happens when the challenge window is over.
          </p>
        ) : null}
        {open.length ? (
          <div>
            <button
              type="button"
              className="button"
              disabled={!wallet.rightChain || (transaction !== undefined && isPending(transaction))}
              onClick={run}
              data-testid="accept-rounds"
            >
              {title}
            </button>
          </div>
        ) : null}
        <TransactionPanel id={key} retry={run} />
      </div>
    </Panel>
  );
}
