import { useQuery } from '@tanstack/react-query';
import { fetchMeasurements } from '@/api/endpoints';
import type { Measurement, Node } from '@/api/types';
import { Age, Num, Panel } from '@/components/basics';
import { DataTable } from '@/components/DataTable';
import { Sparkline } from '@/components/Sparkline';
import { nodeName } from '@/components/states';
import { count } from '@/lib/format';
import { QUANTITIES, sourceOf } from '@/lib/measures';

const REFRESH = 10_000;

/** All that was measured of one node over time, the coordinator's view beside the node's word. */
export function LinkHistory({ node }: { node: Node }) {
  const { data } = useQuery({
    queryKey: ['measurements', node.id],
    queryFn: () => fetchMeasurements(node.id),
    refetchInterval: REFRESH,
  });
  if (!data?.measurements.length) return null;
  return (
    <Panel title={`${nodeName(node)}: measured over time`} flush>
      <DataTable
        caption={`What was measured of ${nodeName(node)}`}
        columns={[
          { key: 'what', label: 'Quantity', lead: true, cell: labelOf },
          {
            key: 'now',
            label: 'Now',
            number: true,
            cell: (row) => <Num value={QUANTITIES[row.quantity].text(row.value)} />,
          },
          {
            key: 'deviation',
            label: 'Mean deviation',
            number: true,
            cell: (row) => (row.deviation > 0 ? QUANTITIES[row.quantity].text(row.deviation) : '–'),
          },
          { key: 'history', label: 'History', cell: (row) => <History row={row} /> },
          { key: 'source', label: 'Source', wide: true, cell: sourceOf },
          { key: 'samples', label: 'Samples', number: true, cell: (row) => count(row.samples) },
          { key: 'age', label: 'Age', cell: (row) => <Age at={row.at} /> },
        ]}
        rows={data.measurements}
        id={(row) => `${row.quantity} ${row.of} ${row.claimed}`}
        rowProps={(row) => ({ 'data-testid': 'measurement', 'data-quantity': row.quantity })}
        foot="A history keeps its newest points; the older, the farther apart."
      />
    </Panel>
  );
}

function labelOf({ quantity, of }: Measurement): string {
  const { label } = QUANTITIES[quantity];
  if (quantity === 'peer_rtt') return `${label} #${of}`;
  if (of && quantity === 'up') return `${label}, by way of #${of}`;
  if (of && quantity === 'down') return `${label}, from #${of}`;
  return of ? `${label}, ${of}` : label;
}

function History({ row }: { row: Measurement }) {
  const values = row.history.map((point) => point[1] as number);
  const since = row.history[0]?.[0];
  const label = `${labelOf(row)}: ${values.length} points${since ? ` since ${new Date(since * 1000).toISOString()}` : ''}`;
  return <Sparkline values={values} label={label} />;
}
