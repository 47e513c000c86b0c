"""Gas limits. Monad charges the limit, not what is used, so a generous one is money thrown away; one too low is a payment
that fails. A settlement's is known beforehand, from its calldata alone; `scripts/fit_gas.py` measures the figures anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from marketplace.chain import abi
from marketplace.chain.models import Intent
from marketplace.chain.profiles import GasSchedule

INTRINSIC, ZERO_BYTE, OTHER_BYTE = 21_000, 4, 16  # EIP-2028
FLOOR_PER_TOKEN = 10  # EIP-7623: a zero byte is one token, another byte four
RECEIPT_BYTES = 109
ROOM = 103, 100


@dataclass(frozen=True, slots=True)
class Fitted:
    """What settleRound takes besides its calldata, for nodes that have been paid before.

    call: whatever the batch. opening: each attestor that opens. receipt, score: each receipt, and each score of it.
    sort, compare: of more than three scores, whose median is found by sorting, each score and each pair. page: each storage
    page of nodes (64 of them, by id). record: submitContribution, all of it.
    """

    call: int
    opening: int
    receipt: int
    score: int
    sort: int
    compare: int
    page: int
    record: int


FITTED: dict[GasSchedule, Fitted] = {
    "ethereum": Fitted(
        call=80_798, opening=8_415, receipt=17_296, score=96, sort=430, compare=76, page=-3_483, record=51_573
    ),
    "monad": Fitted(
        call=89_690, opening=9_425, receipt=11_434, score=119, sort=397, compare=78, page=10_752, record=74_573
    ),
}  # fmt: skip
NODES_A_PAGE = 64


def gas_limit(intent: Intent, estimated: int) -> int:
    """At most 6 % over what the call takes. `estimated` is what a node's dry run took.

    The dry run knows which nodes are paid for the first time (a new storage slot each); the formula does not depend on
    the state that the node happened to run it on. The larger of both counts.
    """
    if (formula := fitted_gas(intent.kind, intent.data, settings.HYPERGPU.chain.gas)) is None:
        return with_room(estimated)
    more, of = ROOM
    return max(formula, estimated) * more // of


def with_room(estimated: int) -> int:
    """5 % over a node's estimate, which on Monad is exact to 1.5 %."""
    return estimated * 105 // 100


def fitted_gas(function: str, data: str, schedule: GasSchedule) -> int | None:
    """Gas of a call by its calldata (0x-hex); None where nothing is fitted."""
    fitted = FITTED[schedule]
    if function == "submitContribution":
        return calldata_gas(data) + fitted.record
    if function != "settleRound":
        return None
    _, receipts, attestations = abi.decode_arguments("market", function, data)
    count, opened = len(receipts) // RECEIPT_BYTES, sum(1 for attestation in attestations if attestation[2])
    each = fitted.receipt + fitted.score * opened + (opened * (fitted.sort + fitted.compare * opened) if opened > 3 else 0)
    variable = fitted.opening * opened + each * count + fitted.page * pages(receipts)
    return max(calldata_gas(data) + fitted.call + variable, calldata_floor(data))


def pages(receipts: bytes) -> int:
    """Storage pages that hold the nodes of packed receipts."""
    ids = (int.from_bytes(receipts[at : at + 4]) for at in range(0, len(receipts), RECEIPT_BYTES))
    return len({id // NODES_A_PAGE for id in ids})


def calldata_gas(data: str) -> int:
    body = bytes.fromhex(data.removeprefix("0x"))
    zeros = body.count(0)
    return zeros * ZERO_BYTE + (len(body) - zeros) * OTHER_BYTE


def calldata_floor(data: str) -> int:
    return INTRINSIC + FLOOR_PER_TOKEN * calldata_gas(data) // ZERO_BYTE
