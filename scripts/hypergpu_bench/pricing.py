"""What a traced transaction costs, by Ethereum's rules and by Monad's.

Ethereum's price is computed from the same steps as Monad's and must equal the node's gasUsed to the unit: that is the
proof that no storage step, account or byte was missed. The prices are those of:

- Ethereum: EIP-2028 and EIP-7623 (calldata), EIP-2929 (cold and warm), EIP-2200 and EIP-3529 (SSTORE, refunds).
- Monad: MIP-8 (storage by pages of 128 slots, no refunds), cold accounts 10,100, ecrecover 6,000
  (docs.monad.xyz, opcode pricing; shared by testnet and mainnet since 2026-09-02). Memory is priced as on Ethereum, which
  is a little too much: Monad takes half a gas a word (MIP-3).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from scripts.hypergpu_bench.tracing import AccountStep, StorageStep, Trace

INTRINSIC, ZERO_BYTE, BYTE, FLOOR_TOKEN = 21_000, 4, 16, 10

WARM, COLD_SLOT, COLD_ACCOUNT = 100, 2_100, 2_600
SET, RESET = 20_000, 2_900
CLEARED = 4_800
REFUND_SHARE = 5

PAGE_SLOTS_LOG2 = 7
PAGE_LOAD, PAGE_WRITE, GROWTH = 8_000, 2_800, 17_000
MONAD_COLD_ACCOUNT = 10_100
PRECOMPILES = range(1, 0x12)
MONAD_EXTRA = {1: 3_000, 2: 0, 3: 0, 4: 0}
"""Precompiles whose price on Monad we know: ecrecover is twice Ethereum's; sha256, ripemd160 and identity are the same."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Gas by what it is for. `refund` is negative; `floor` is what EIP-7623 adds."""

    intrinsic: int
    calldata: int
    storage: int
    accounts: int
    rest: int
    refund: int = 0
    floor: int = 0

    @property
    def total(self) -> int:
        return self.intrinsic + self.calldata + self.storage + self.accounts + self.rest + self.refund + self.floor


def ethereum(trace: Trace) -> Bill:
    storage, refund = ethereum_storage(trace)
    return bill(trace, storage, sum(ethereum_accounts(trace)), refund=refund)


def monad(trace: Trace) -> Bill:
    """What Monad would charge for a limit that fits exactly. Raises ValueError for a precompile of unknown price."""
    return bill(trace, monad_storage(trace), sum(monad_accounts(trace)))


def bill(trace: Trace, storage: int, accounts: int, *, refund: int = 0) -> Bill:
    zeros = trace.calldata.count(0)
    tokens = zeros + 4 * (len(trace.calldata) - zeros)
    priced_alike = trace.execution - sum(step.cost for step in trace.storage) - sum(step.cost for step in trace.accounts)
    calldata = ZERO_BYTE * tokens
    used = INTRINSIC + calldata + storage + accounts + priced_alike
    refund = min(refund, used // REFUND_SHARE)
    floor = max(0, INTRINSIC + FLOOR_TOKEN * tokens - (used - refund))
    return Bill(INTRINSIC, calldata, storage, accounts, priced_alike, -refund, floor)


# Storage.


def ethereum_storage(trace: Trace) -> tuple[int, int]:
    """Gas and refund."""
    seen: set[tuple[str, int]] = set()
    now = dict(trace.before)
    gas = refund = 0
    for step in trace.storage:
        gas += 0 if step.slot in seen else COLD_SLOT
        if not step.write:
            gas += 0 if step.slot not in seen else WARM
        else:
            original, current = trace.before.get(step.slot, 0), now.get(step.slot, 0)
            gas += sstore(original, current, step.new)
            refund += sstore_refund(original, current, step.new)
            now[step.slot] = step.new
        seen.add(step.slot)
    return gas, refund


def sstore(original: int, current: int, new: int) -> int:
    if new == current or current != original:
        return WARM
    return SET if original == 0 else RESET


def sstore_refund(original: int, current: int, new: int) -> int:
    if new == current:
        return 0
    refund = 0
    if original != 0:
        refund += CLEARED * ((new == 0) - (current == 0))
    if current != original and new == original:
        refund += (SET if original == 0 else RESET) - WARM
    return refund


def monad_storage(trace: Trace) -> int:
    """MIP-8: the first touch of a page loads it, the first change writes it, each slot more than there ever were grows it."""
    loaded: set[tuple[str, int]] = set()
    written: set[tuple[str, int]] = set()
    growth: dict[tuple[str, int], int] = defaultdict(int)
    paid: dict[tuple[str, int], int] = defaultdict(int)
    now = dict(trace.before)
    gas = 0
    for step in trace.storage:
        page = page_of(step)
        gas += WARM + (0 if page in loaded else PAGE_LOAD)
        loaded.add(page)
        current = now.get(step.slot, 0)
        if not step.write or step.new == current:
            continue
        gas += 0 if page in written else PAGE_WRITE
        written.add(page)
        now[step.slot] = step.new
        growth[page] += (current == 0) - (step.new == 0)
        if growth[page] > paid[page]:
            gas += GROWTH
            paid[page] = growth[page]
    return gas


def page_of(step: StorageStep) -> tuple[str, int]:
    address, slot = step.slot
    return address, slot >> PAGE_SLOTS_LOG2


# Other accounts.


def ethereum_accounts(trace: Trace) -> list[int]:
    """Each step's price, which is also what the node charged for it: nothing to assume."""
    return [step.cost for step in trace.accounts]


def monad_accounts(trace: Trace) -> list[int]:
    warm = {trace.sender, trace.to, *PRECOMPILES}
    prices = []
    for step in trace.accounts:
        cold = step.account not in warm
        warm.add(step.account)
        prices.append(step.cost + extra(step) + (MONAD_COLD_ACCOUNT - COLD_ACCOUNT if cold else 0))
    return prices


def extra(step: AccountStep) -> int:
    if step.account not in PRECOMPILES:
        return 0
    if step.account not in MONAD_EXTRA:
        raise ValueError(f"what precompile {step.account:#x} costs on Monad is not written down here")
    return MONAD_EXTRA[step.account]
