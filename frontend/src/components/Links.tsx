import type { Node } from '@/api/types';
import { newestSpeed } from '@/lib/measures';
import { Panel } from './basics';
import { DataTable } from './DataTable';
import { Measured } from './Measured';
import { nodeName } from './states';

/** What is measured of nodes and their links; nothing while nothing is. */
export function Links({ nodes }: { nodes: readonly Node[] }) {
  const known = nodes.filter((node) => Object.keys(node.measured).length > 0);
  if (known.length === 0) return null;
  return (
    <Panel title="Machines and links, as measured" flush>
      <DataTable
        caption="What is measured of nodes and their links"
        columns={[
          { key: 'node', label: 'Node', lead: true, cell: (node) => nodeName(node) },
          {
            key: 'speed',
            label: 'Speed',
            number: true,
            cell: (node) => <Measured of="speed" fact={newestSpeed(node)} />,
          },
          {
            key: 'rtt',
            label: 'Round trip',
            number: true,
            cell: ({ measured }) => <Measured of="rtt" fact={measured.rtt} />,
          },
          {
            key: 'up',
            label: 'Up',
            number: true,
            cell: ({ measured }) => <Measured of="up" fact={measured.up} />,
          },
          {
            key: 'down',
            label: 'Down',
            number: true,
            cell: ({ measured }) => <Measured of="down" fact={measured.down} />,
          },
          {
            key: 'loss',
            label: 'Loss',
            number: true,
            cell: ({ measured }) => <Measured of="loss" fact={measured.loss} />,
          },
          {
            key: 'reconnects',
            label: 'Reconnects',
            number: true,
            cell: ({ measured }) => <Measured of="reconnects" fact={measured.reconnects} />,
          },
        ]}
        rows={known}
        id={(node) => node.id}
        rowProps={() => ({ 'data-testid': 'link-row' })}
        foot="± is the mean deviation, for round trips the jitter. Marked values (node) are the node's own word; the rest the coordinator saw itself."
      />
    </Panel>
  );
}
