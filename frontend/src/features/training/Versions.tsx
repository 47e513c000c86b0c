import { useNetwork } from '@/api/network';
import type { Job, Round } from '@/api/types';
import { CopyButton, Hash, Panel } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { bytes, plural } from '@/lib/format';
import type { Entities } from '@/realtime/entities';
import { listOf } from '@/realtime/topics';
import { auditCommand, type Traffic, trafficOf } from './versions';

/** What each round made of the model, and what travelled for it; and how a stranger comes to the same version. */
export function Versions({ job, entities }: { job: Job; entities: Entities }) {
  const network = useNetwork();
  const rounds = listOf(entities.rounds, (round) => round.number).filter((round) => round.after);
  const contributions = [...entities.contributions.values()];
  if (rounds.length === 0) return null;
  const command = auditCommand(job, network, window.location.origin);
  return (
    <Panel
      title="Model versions"
      aside={<span className="muted small">Merkle root over the parameters, in every receipt</span>}
      flush
    >
      <DataTable
        caption="Model versions by round, newest first"
        columns={[
          { key: 'round', label: 'Round', lead: true, cell: ({ number }) => <b className="num">{number}</b> },
          { key: 'version', label: 'Version after it', cell: (round) => <Version round={round} /> },
          {
            key: 'up',
            label: 'Up, a node',
            number: true,
            cell: (round) => <Up traffic={trafficOf(round, contributions)} />,
          },
          {
            key: 'down',
            label: 'Down, a node',
            number: true,
            cell: (round) => {
              const { down } = trafficOf(round, contributions);
              return down === null ? '–' : bytes(down);
            },
          },
        ]}
        rows={rounds}
        id={(round) => round.id}
        limit={6}
        rowProps={() => ({ 'data-testid': 'version-row' })}
        foot="Sizes of the files as they travelled: each node sends its update, and fetches one encoded step of the whole round."
      />
      <div className="panel-body stack tight">
        <p className="small">
          Anyone can compute every version again, bit by bit, from public files and the chain alone:
        </p>
        <p className="row">
          <code className="command" data-testid="audit-command">
            {command}
          </code>
          <CopyButton text={command} label="command" />
        </p>
      </div>
    </Panel>
  );
}

function Version({ round }: { round: Round }) {
  return round.after ? <Hash value={round.after.version} label="model version" /> : '–';
}

function Up({ traffic: { up, senders } }: { traffic: Traffic }) {
  if (up === null) return '–';
  return <span title={`the mean of ${plural(senders, 'contribution')}`}>{bytes(up)}</span>;
}
