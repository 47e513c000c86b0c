import { type ReactNode, useState } from 'react';
import { plural } from '@/lib/format';

export type Column<Row> = {
  key: string;
  label: ReactNode;
  cell: (row: Row) => ReactNode;
  number?: boolean;
  /** The cell that heads the card on a narrow screen. */
  lead?: boolean;
  /** Takes a whole line of that card. */
  wide?: boolean;
};

type Props<Row> = {
  caption: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  id: (row: Row) => number | string;
  rowProps?: (row: Row) => Record<string, unknown>;
  foot?: ReactNode;
  /** Rows shown before "Show all". */
  limit?: number;
};

const NARROW_LIMIT = 8;
const narrow = () => matchMedia('(max-width: 760px)').matches;

/** A table that turns into labelled cards on a phone. Its caption names it for screen readers. */
export function DataTable<Row>({ caption, columns, rows, id, rowProps, foot, limit = 40 }: Props<Row>) {
  const [all, setAll] = useState(false);
  const most = narrow() ? Math.min(limit, NARROW_LIMIT) : limit;
  const shown = all ? rows : rows.slice(0, most);
  return (
    <>
      <div className="table-wrap">
        <table className="table cards">
          <caption className="visually-hidden">{caption}</caption>
          <thead>
            <tr>
              {columns.map((column) => (
                <th key={column.key} scope="col" className={column.number ? 'number' : undefined}>
                  {column.label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={id(row)} {...rowProps?.(row)}>
                {columns.map((column) => (
                  <td
                    key={column.key}
                    data-label={typeof column.label === 'string' ? column.label : column.key}
                    className={cellClass(column)}
                  >
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {foot || rows.length > most ? (
        <div className="table-foot">
          <span>{foot}</span>
          {rows.length > most ? (
            <button type="button" className="link" onClick={() => setAll(!all)}>
              {all ? `Show the first ${most}` : `Show all ${plural(rows.length, 'row')}`}
            </button>
          ) : null}
        </div>
      ) : null}
    </>
  );
}

function cellClass<Row>({ number, lead, wide }: Column<Row>): string | undefined {
  return [number && 'number', lead && 'lead', wide && 'wide'].filter(Boolean).join(' ') || undefined;
}
