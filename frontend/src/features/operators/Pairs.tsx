import { useQuery } from '@tanstack/react-query';
import { fetchPairs } from '@/api/endpoints';
import type { Node } from '@/api/types';
import { Panel } from '@/components/basics';
import { Measured } from '@/components/Measured';
import { nodeName } from '@/components/states';

const REFRESH = 10_000;

/** Round trips between nodes whose endpoints others have reached: from the row's node to the column's. */
export function Pairs({ nodes }: { nodes: readonly Node[] }) {
  const { data } = useQuery({ queryKey: ['pairs'], queryFn: fetchPairs, refetchInterval: REFRESH });
  if (!data?.measurements.length) return null;
  const found = new Map(data.measurements.map((row) => [`${row.node_id} ${row.of}`, row]));
  const named = (ids: Iterable<number>) =>
    [...new Set(ids)].sort((a, b) => a - b).map((id) => ({ id, node: nodes.find((node) => node.id === id) }));
  const from = named(data.measurements.map((row) => row.node_id));
  const to = named(data.measurements.map((row) => Number(row.of)));
  const name = ({ id, node }: (typeof from)[number]) => (node ? nodeName(node) : `#${id}`);
  return (
    <Panel title="Between nodes" flush>
      <div className="table-wrap">
        <table className="table" data-testid="pairs">
          <caption className="visually-hidden">Round trips from node to node</caption>
          <thead>
            <tr>
              <th scope="col">from \ to</th>
              {to.map((column) => (
                <th key={column.id} scope="col" className="number">
                  {name(column)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {from.map((row) => (
              <tr key={row.id}>
                <th scope="row">{name(row)}</th>
                {to.map((column) => (
                  <td key={column.id} className="number">
                    <Measured of="peer_rtt" fact={found.get(`${row.id} ${column.id}`)} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
