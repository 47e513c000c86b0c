import { type ReactNode, useState } from 'react';
import { plural } from '@/lib/format';

export type Column<Row> = {
  key: string;
  label: ReactNode;
  cell: (row: Row) => ReactNode;
  number?: boolean;
  /** The cell that heads the card on a narrow screen. */
  lead?: boolean;
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

/** A table that turns into labelled cards on a phone. Its caption names it for screen readers. */
export function DataTable<Row>({ caption, columns, rows, id, rowProps, foot, limit = 40 }: Props<Row>) {
  const [all, setAll] = useState(false);
  const shown = all ? rows : rows.slice(0, limit);
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
                    className={[column.number ? 'number' : '', column.lead ? 'lead' : ''].join(' ').trim() || undefined}
                  >
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {foot || rows.length > limit ? (
        <div className="table-foot">
          <span>{foot}</span>
          {rows.length > limit ? (
            <button type="button" className="link" onClick={() => setAll(!all)}>
              {all ? `Show the newest ${limit}` : `Show all ${plural(rows.length, 'row')}`}
            </button>
          ) : null}
        </div>
      ) : null}
    </>
  );
}
