import type { ReactNode } from 'react';
import type { Address } from 'viem';
import { useNetwork } from '@/api/network';
import { useSession } from '@/api/session';
import { useWallet } from '@/chain/hooks';
import { Amount, CopyButton } from '@/components/basics';
import { Links } from '@/components/Links';
import { Gate } from '@/features/accounts/Account';
import { StakeBack } from '@/features/operators/Leave';
import { LinkHistory } from '@/features/operators/LinkHistory';
import { OperatorMoney } from '@/features/operators/OperatorMoney';
import { OwnNode } from '@/features/operators/OwnNode';
import { RegisterNode } from '@/features/operators/RegisterNode';
import { Terms } from '@/features/operators/Terms';
import { useTopic } from '@/realtime/RealtimeProvider';
import { listOf, operatorTopic } from '@/realtime/topics';
import { useTitle } from '../useTitle';

export function OperatePage() {
  const wallet = useWallet();
  const network = useNetwork();
  useTitle('Earn with your GPU');
  return (
    <>
      <div className="stack tight">
        <h1>Earn with your GPU</h1>
        <p className="lede">
          Your machine trains, signs what it made with a hot key, and is paid by quality, seconds after each
          round. Your wallet never touches the GPU machine. The stake is <Amount base={network.min_stake} />{' '}
          for each node.
        </p>
      </div>
      {wallet.address ? (
        <Standing key={wallet.address} address={wallet.address} />
      ) : (
        <Steps operator={null} registered={0} />
      )}
    </>
  );
}

function Standing({ address }: { address: Address }) {
  const { data, ready } = useTopic(operatorTopic(address));
  const nodes = listOf(data.nodes, (node) => -node.id).filter(
    // A retired node stays as long as there is something to withdraw.
    (node) => node.state !== 'retired' || BigInt(node.credit) > 0n,
  );
  const bids = [...data.bids.values()];
  const payments = [...data.payments.values()];
  return (
    <>
      {nodes.length ? <OperatorMoney operator={address} /> : null}
      {nodes.map((node) => (
        <OwnNode key={node.id} node={node} bids={bids} payments={payments} />
      ))}
      <Links nodes={nodes} />
      {nodes.map((node) => (
        <LinkHistory key={node.id} node={node} />
      ))}
      <StakeBack operator={address} />
      {nodes.length ? <h2>Add another node</h2> : null}
      <Steps operator={address} registered={ready ? nodes.length : 0} />
    </>
  );
}

function Steps({ operator, registered }: { operator: Address | null; registered: number }) {
  const session = useSession();
  const signedIn = operator !== null && Boolean(session);
  const server = location.origin;
  const delegate = `hypergpu agent delegate --coordinator ${server} --operator ${operator ?? '0x…your wallet'}`;
  return (
    <div className="split">
      <ol className="checklist">
        <Step title="Connect your wallet and sign in" state={signedIn ? 'done' : 'active'}>
          {signedIn ? (
            <p className="muted small">Stake and earnings belong to this wallet.</p>
          ) : (
            <div style={{ maxWidth: 360 }}>
              <Gate need="session">{null}</Gate>
            </div>
          )}
        </Step>
        <Step
          title="On the GPU machine, make a hot key for this wallet"
          state={signedIn ? 'active' : 'waiting'}
        >
          <p className="muted small">
            It creates a key that can only sign receipts, and prints a link that fills in the form below.
            Install first: <code>pip install ".[operator]"</code>
          </p>
          <Command text={delegate} />
        </Step>
        <Step title="Register the node with its stake" state={signedIn ? 'active' : 'waiting'}>
          {operator ? (
            <RegisterNode key={registered} operator={operator} />
          ) : (
            <p className="muted small">Connect a wallet first.</p>
          )}
        </Step>
        <Step title="Post a standing bid, then start the agent" state="waiting">
          <p className="muted small">
            As soon as the registration is final the node appears above, with its bid form. Then let it work:
          </p>
          <Command text={`hypergpu agent --coordinator ${server}`} />
        </Step>
      </ol>
      <div className="sticky">
        <Terms />
      </div>
    </div>
  );
}

function Step({
  title,
  state,
  children,
}: {
  title: string;
  state: 'done' | 'active' | 'waiting';
  children: ReactNode;
}) {
  return (
    <li className="panel" data-state={state}>
      <div className="stack">
        <h2>{title}</h2>
        {children}
      </div>
    </li>
  );
}

function Command({ text }: { text: string }) {
  return (
    <div className="command">
      <code>{text}</code>
      <CopyButton text={text} label="command" />
    </div>
  );
}
