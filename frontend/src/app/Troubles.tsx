import { useHead } from '@/api/network';
import { Notice } from '@/components/Notice';
import { localTime } from '@/lib/format';

/** What keeps payments waiting for everybody: pauses of the contract, and what alarms the coordinator. */
export function Troubles() {
  const { paused, alarms } = useHead().network;
  return (
    <>
      {paused.new_jobs_until ? (
        <Notice tone="warn" title="New jobs are paused">
          Until {localTime(paused.new_jobs_until)} at the latest. What runs goes on.
        </Notice>
      ) : null}
      {paused.settlement_until ? (
        <Notice tone="warn" title="Settlement is paused">
          Until {localTime(paused.settlement_until)} at the latest: payments wait, and nothing is lost.
          Withdrawals go on.
        </Notice>
      ) : null}
      {alarms.map(({ code, subject, message }) => (
        <Notice key={`${code} ${subject}`} tone="warn" title="Payments may wait">
          {message}
        </Notice>
      ))}
    </>
  );
}
