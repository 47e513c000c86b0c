"""How credit becomes money: what is free, what can be had in advance, and what a fault costs.

An executable specification, like trainer.protocol.settlement, and tested in the same place. Credit is free once it can no
longer be disputed. The market keeps no time for each payment: a mark keeps how much a node had earned at one moment, and
once it is `challenge_window` old, all of that is free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.protocol.settlement import Refusal
from trainer.protocol.types import QUALITY_ONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """`instant_share` in basis points of what can be slashed, `challenge_window` and `dispute_time` in seconds."""

    min_stake: int
    challenge_window: int
    dispute_time: int
    instant_share: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """`advance`: what its nodes have withdrawn before it was free."""

    stake: int
    unbonding: int = 0
    advance: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """A node's credit. `taken`: withdrawn or slashed, ever. `matured`: earned until `matured_at`, free. `marked`: earned
    until `marked_at` (None if no mark waits), free once the mark is old enough. `released_*`: freed early because the
    requester accepted the round, held in the waiting mark or in none. `held`: must stay until `held_until`, for disputes."""

    credit: int = 0
    taken: int = 0
    advance: int = 0
    matured: int = 0
    matured_at: int = 0
    marked: int = 0
    marked_at: int | None = None
    released_marked: int = 0
    released_since: int = 0
    held: int = 0
    held_until: int = 0

    @property
    def earned(self) -> int:
        return self.credit + self.taken


Pair = tuple[Account, Operator]


def is_mature(account: Account, terms: Terms, now: int) -> bool:
    return account.marked_at is not None and now >= account.marked_at + terms.challenge_window


def freed(account: Account, terms: Terms, now: int) -> int:
    """What of the node's earnings was ever free."""
    if is_mature(account, terms, now):
        return account.marked + account.released_since
    return account.matured + account.released_marked + account.released_since


def withdrawable(account: Account, operator: Operator, terms: Terms, now: int) -> int:
    """What is free and not taken, and on top what the operator's slashable stake still vouches for; less what is held for
    disputes, whatever is free."""
    free = freed(account, terms, now)
    advance = operator.advance - account.advance + max(account.taken - free, 0)
    limit = (operator.stake + operator.unbonding) * terms.instant_share // QUALITY_ONE
    most = min(account.credit, max(free - account.taken, 0) + max(limit - advance, 0))
    return max(most - (account.held if now < account.held_until else 0), 0)


def hold(account: Account, terms: Terms, now: int, *, amount: int) -> Account:
    """A dispute about so much of what the node was paid begins. It ends by `free`, or with the longest dispute."""
    return replace(account, held=account.held + amount, held_until=now + terms.dispute_time)


def free(account: Account, *, amount: int) -> Account:
    """A dispute is over: so much less is held."""
    return replace(account, held=account.held - amount)


def earn(account: Account, amount: int) -> Account:
    return replace(account, credit=account.credit + amount)


def mark(account: Account, operator: Operator, terms: Terms, now: int) -> Pair:
    """The waiting mark matures if it is time; a new one is made if none waits and there is something to mark."""
    account, operator = mature(account, operator, terms, now)
    if account.marked_at is None and account.earned > account.matured:
        # All that was released by now was credited by now: the mark holds it.
        account = replace(
            account, marked=account.earned, marked_at=now, released_marked=account.released_since, released_since=0
        )  # fmt: skip
    return account, operator


def mature(account: Account, operator: Operator, terms: Terms, now: int) -> Pair:
    if not is_mature(account, terms, now):
        return account, operator
    account = replace(account, matured=account.marked, matured_at=account.marked_at or 0, released_marked=0, marked_at=None)
    return update_advance(account, operator, terms, now)


def release(account: Account, operator: Operator, terms: Terms, now: int, *, amount: int, since: int) -> Pair:
    """An accepted receipt, credited at `since` or later, is free at once, unless a mark has freed it already."""
    account, operator = mature(account, operator, terms, now)
    if since <= account.matured_at:
        raise Refusal("AlreadyFree", "A credit mark covers the receipt.")
    if account.marked_at is not None and since <= account.marked_at:
        account = replace(account, released_marked=account.released_marked + amount)
    else:
        account = replace(account, released_since=account.released_since + amount)
    return update_advance(account, operator, terms, now)


def withdraw(account: Account, operator: Operator, terms: Terms, now: int, *, amount: int) -> Pair:
    if amount == 0:
        raise Refusal("ZeroAmount", "A withdrawal is more than nothing.")
    account, operator = mark(account, operator, terms, now)
    most = withdrawable(account, operator, terms, now)
    if amount > most:
        raise Refusal("InsufficientCredit", f"{amount} is asked, and {most} can be withdrawn.")
    return take(account, operator, terms, now, amount=amount)


def take(account: Account, operator: Operator, terms: Terms, now: int, *, amount: int) -> Pair:
    """Paid out or slashed: out of the credit either way."""
    account = replace(account, credit=account.credit - amount, taken=account.taken + amount)
    return update_advance(account, operator, terms, now)


def update_advance(account: Account, operator: Operator, terms: Terms, now: int) -> Pair:
    """What was taken before it was free, of the node, and so of its operator."""
    advance = max(account.taken - freed(account, terms, now), 0)
    operator = replace(operator, advance=operator.advance - account.advance + advance)
    return replace(account, advance=advance), operator


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Where the money of a penalty comes from, and where it goes. `restitution` is all that the harmed job gets."""

    from_credit: int
    from_stake: int
    from_unbonding: int
    from_insurance: int
    restitution: int
    to_challenger: int
    to_insurance: int


def is_fair(*, to_challenger: int, to_insurance: int) -> bool:
    """Whether a penalty can have been split so: half of what costs leave goes to the insurance, and costs are at most a
    quarter."""
    halves = (2 * to_insurance, 2 * to_insurance + 1)
    return any(to_challenger <= (to_challenger + half) // 4 for half in halves)


INSURANCE_PART = 10
"""The insurance pays at most this part of itself for one case, so that no case empties it."""


def split_penalty(
    account: Account, operator: Operator, terms: Terms, *, receipt: int, insurance: int, restitution: int, penalty: int,
    costs: int,
) -> Split:  # fmt: skip
    """Restitution and penalty come from the node's credit, then the operator's stake, then what is unbonding; what lacks of
    the restitution alone comes from the insurance, as far as a tenth of it goes. No restitution is above `receipt`, the most
    that the node's seat could be paid for one. Of the penalty the challenger gets its costs, at most a quarter, and of
    the rest the harmed job half (rounded up) and the insurance half."""
    if restitution > receipt:
        raise Refusal("PenaltyAboveMax", f"The job was never to pay more than {receipt} for one receipt.")
    if penalty > terms.min_stake + restitution or costs > penalty // 4:
        raise Refusal("PenaltyAboveMax", "The penalty, or the costs in it, are above what the market allows.")
    due = restitution + penalty
    from_credit = min(account.credit, due)
    from_stake = min(operator.stake, due - from_credit)
    from_unbonding = min(operator.unbonding, due - from_credit - from_stake)
    got = from_credit + from_stake + from_unbonding
    restored, collected = min(got, restitution), max(got - restitution, 0)
    from_insurance = min(insurance // INSURANCE_PART, restitution - restored)
    to_challenger = min(costs, collected // 4)
    to_insurance = (collected - to_challenger) // 2
    return Split(
        from_credit=from_credit, from_stake=from_stake, from_unbonding=from_unbonding, from_insurance=from_insurance,
        restitution=restored + from_insurance + collected - to_challenger - to_insurance, to_challenger=to_challenger,
        to_insurance=to_insurance,
    )  # fmt: skip
