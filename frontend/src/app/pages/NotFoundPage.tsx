import { Link, useLocation } from 'react-router';
import { useNetwork } from '@/api/network';
import { Empty, Panel } from '@/components/basics';
import { useTitle } from '../useTitle';

export function NotFoundPage() {
  const { pathname } = useLocation();
  const { chain } = useNetwork();
  useTitle('Not found');
  return (
    <Panel flush>
      <Empty
        title="There is nothing here"
        action={
          <Link className="button" to="/">
            All jobs
          </Link>
        }
      >
        <code>{pathname}</code> names no page or job of this server, which settles on {chain.name} (chain{' '}
        {chain.id}).
      </Empty>
    </Panel>
  );
}
