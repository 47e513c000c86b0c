"""What is promised happens once, or says why not."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import override_settings
from eth_account import Account

from marketplace.chain import broadcasting, projections
from marketplace.chain.models import Alarm, Attempt, Intent
from marketplace.chain.sender import assign_nonces, broadcast_due, track_receipts
from marketplace.chain.services import enqueue
from tests.chain.conftest import Chain, all_in, balance, promise_mint
from tests.support.anvil import chain_settings
from trainer.protocol.errors import HyperGPUError

pytestmark = [pytest.mark.chain, pytest.mark.django_db]
ZERO = "0x" + "00" * 32


def test_enqueue_with_the_same_key_answers_the_first_intent(chain: Chain) -> None:
    first, to = promise_mint("mint:1")
    again, _ = promise_mint("mint:1", to=to, amount=5)
    assert (again.pk, again.data) == (first.pk, first.data)
    assert Intent.objects.count() == 1


def test_enqueue_in_a_transaction_that_rolls_back_promises_nothing(chain: Chain) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        promise_mint("mint:1")
        raise RuntimeError
    assert not Intent.objects.exists()


@pytest.mark.parametrize(
    ("function", "args", "code"),
    [
        ("settleRounds", [], "chain.unknown_function"),
        ("retireNode", [], "chain.bad_arguments"),
        ("retireNode", [1 << 32], "chain.bad_arguments"),
        ("createJob", ["0x1234", 1, 1], "chain.bad_arguments"),
        ("nodeOfKey", ["0x12"], "chain.bad_arguments"),
    ],
)
def test_enqueue_refuses_what_the_contract_could_not_read(chain: Chain, function: str, args: list[object], code: str) -> None:
    with pytest.raises(HyperGPUError) as refusal:
        enqueue(key="k", function=function, args=args)
    assert refusal.value.code == code


def test_an_intent_becomes_final_and_each_state_is_told_once(chain: Chain) -> None:
    told: list[tuple[str, str]] = []
    for state in ("sent", "included", "final", "failed"):
        projections.register(f"intent.{state}", lambda intent: told.append((intent.key, intent.state)))
    intent, to = promise_mint("mint:1", amount=7)
    chain.drive(all_in("final", intent))
    intent.refresh_from_db()
    assert told == [("mint:1", "sent"), ("mint:1", "included"), ("mint:1", "final")]
    assert balance(to) == 7
    assert intent.sent_at and intent.included_at and intent.final_at and intent.block and intent.tx_hash
    assert intent.sent_at <= intent.included_at <= intent.final_at
    assert chain.anvil.ask("eth_getTransactionReceipt", intent.tx_hash)["blockHash"] == intent.block_hash


def test_an_intent_is_included_before_it_is_final(chain: Chain) -> None:
    intent, _ = promise_mint("mint:1")
    assign_nonces()
    broadcast_due()
    chain.anvil.mine()
    track_receipts()
    assert Intent.objects.get().state == "included"
    chain.anvil.mine(3)
    track_receipts()
    assert all_in("final", intent)()


def test_the_gas_limit_has_five_percent_of_room_and_no_more(chain: Chain) -> None:
    promise_mint("mint:1")
    assign_nonces()
    intent = Intent.objects.get()
    call = {"from": chain.sender, "to": intent.to, "data": intent.data}
    estimated = int(chain.anvil.ask("eth_estimateGas", call), 16)
    assert intent.gas_limit == estimated * 105 // 100


def test_an_intent_that_would_revert_fails_by_name_and_burns_nothing(chain: Chain) -> None:
    told: list[Intent] = []
    projections.register("intent.failed", told.append)
    intent = enqueue(key="settle:1", function="settleRound", args=[[10**9, 0, 0, True, 1, ZERO, ZERO], "0x", []], group="job:1")
    good, _ = promise_mint("mint:1")
    chain.drive(all_in("final", good))
    intent.refresh_from_db()
    assert intent.state == "failed"
    assert intent.reason == "UnknownJob(job_id=1000000000)"
    assert intent.nonce is None and not Attempt.objects.filter(intent=intent).exists()
    assert [seen.pk for seen in told] == [intent.pk]
    assert chain.sent_transactions() == 1


def test_an_intent_that_reverts_in_its_block_fails_by_name_when_that_is_final(chain: Chain) -> None:
    """Two calls of which only one can succeed, both judged good before either is in a block."""
    owner, to = Account.create(), Account.create().address
    domain = {"name": "HyperGPU Test USD", "version": "1", "chainId": 31337, "verifyingContract": chain.env.token_address}
    fields = {
        "TransferWithAuthorization": [
            {"name": name, "type": kind}
            for name, kind in [
                ("from", "address"), ("to", "address"), ("value", "uint256"),
                ("validAfter", "uint256"), ("validBefore", "uint256"), ("nonce", "bytes32"),
            ]
        ]
    }  # fmt: skip
    message = {"from": owner.address, "to": to, "value": 5, "validAfter": 0, "validBefore": 2**40, "nonce": b"\x07" * 32}
    signed = owner.sign_typed_data(domain, fields, message)
    funding, _ = promise_mint("mint:owner", to=owner.address, amount=10)
    chain.drive(all_in("final", funding))
    parts = [f"0x{part:064x}" for part in (signed.r, signed.s)]
    authorization = [owner.address, to, 5, 0, 2**40, "0x" + "07" * 32, signed.v, *parts]
    call = {"function": "transferWithAuthorization", "args": authorization, "contract": "token"}
    first, second = enqueue(key="a", **call), enqueue(key="b", **call)  # type: ignore[arg-type]
    assert assign_nonces() == 2
    broadcast_due()
    chain.anvil.mine()
    track_receipts()
    assert list(Intent.objects.filter(pk__in=[first.pk, second.pk]).order_by("id").values_list("state", flat=True)) == [
        "included",
        "sent",
    ]
    chain.drive(all_in("failed", second))
    second.refresh_from_db()
    assert second.reason.startswith("ERC3009UsedAuthorization(")
    assert second.tx_hash and second.block
    assert all_in("final", first)()
    assert balance(to) == 5


def test_a_group_goes_in_order_and_others_beside_it(chain: Chain) -> None:
    first, _ = promise_mint("a:1", group="a")
    second, _ = promise_mint("a:2", group="a")
    other, _ = promise_mint("b:1", group="b")
    alone, _ = promise_mint("alone")
    assert assign_nonces() == 3
    assert set(Intent.objects.filter(nonce__isnull=False)) == {first, other, alone}
    broadcast_due()
    assert assign_nonces() == 0
    chain.anvil.mine()
    track_receipts()
    assert assign_nonces() == 1
    chain.drive(all_in("final", first, second, other, alone))
    assert chain.sent_transactions() == 4


def test_a_failed_intent_does_not_hold_up_its_group(chain: Chain) -> None:
    bad = enqueue(key="bad", function="retireNode", args=[4_000_000], group="a")
    good, _ = promise_mint("good", group="a")
    chain.drive(all_in("final", good))
    assert all_in("failed", bad)()


def test_a_transaction_that_the_node_forgot_is_sent_again_as_the_same_bytes(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent, to = promise_mint("mint:1")
    assign_nonces()
    broadcast_due()
    intent.refresh_from_db()
    chain.anvil.ask("anvil_dropTransaction", intent.tx_hash)
    chain.anvil.mine(2)
    assert broadcast_due() == 0  # too soon to worry
    monkeypatch.setattr(broadcasting, "REBROADCAST_AFTER", broadcasting.REBROADCAST_AFTER * 0)
    chain.drive(all_in("final", intent))
    assert Attempt.objects.count() == 1
    assert (balance(to), chain.sent_transactions()) == (1, 1)


def test_a_stuck_transaction_is_replaced_at_its_own_nonce_for_more(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasting, "BUMP_AFTER", broadcasting.BUMP_AFTER * 0)
    intent, to = promise_mint("mint:1")
    later, _ = promise_mint("mint:2")
    assign_nonces()
    broadcast_due()
    broadcast_due()
    first, second = Attempt.objects.filter(intent=intent).order_by("number")
    assert second.max_fee >= first.max_fee * 11 // 10 and second.priority_fee >= first.priority_fee * 11 // 10
    assert later.attempts.count() == 1  # it waits for the one before; a higher fee would not help
    monkeypatch.undo()
    chain.drive(all_in("final", intent, later))
    intent.refresh_from_db()
    assert intent.tx_hash == second.hash
    assert (balance(to), chain.sent_transactions()) == (1, 2)


def test_a_fee_above_the_ceiling_waits_and_alarms_until_it_falls(chain: Chain) -> None:
    intent, _ = promise_mint("mint:1")
    low = chain_settings(chain.anvil, chain.folder, sender_keys=chain.env.sender_keys, fee_ceiling_gwei=0.1)
    with override_settings(HYPERGPU=low):
        assign_nonces()
        broadcast_due()
        assert Intent.objects.get().state == "pending" and "ceiling" in Intent.objects.get().reason
        assert Alarm.objects.get().code == "chain.fee_ceiling" and Alarm.objects.get().subject == chain.sender
    chain.drive(all_in("final", intent))
    assert not Alarm.objects.exists()


def test_a_sender_without_gas_says_so_and_goes_on_when_it_has_some(chain: Chain) -> None:
    intent, _ = promise_mint("mint:1")
    chain.anvil.fund(chain.sender, 0)
    assign_nonces()
    broadcast_due()
    intent.refresh_from_db()
    assert intent.state == "pending" and "nsufficient funds" in intent.reason
    chain.anvil.fund(chain.sender)
    Attempt.objects.update(broadcast_at=None)
    chain.drive(all_in("final", intent))
    assert Intent.objects.get().reason == ""


def test_a_nonce_that_a_stranger_used_fails_the_intent_and_sends_nothing_twice(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent, to = promise_mint("mint:1")
    assign_nonces()
    key = chain.env.sender_keys[0].get_secret_value()
    foreign = {"type": 2, "chainId": 31337, "nonce": 0, "to": to, "value": 1, "gas": 21000, "data": "0x"}
    fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
    chain.anvil.ask("eth_sendRawTransaction", "0x" + bytes(Account.sign_transaction(foreign | fees, key).raw_transaction).hex())
    chain.anvil.mine(4)
    broadcast_due()
    track_receipts()
    assert Intent.objects.get().state == "pending"  # it may still be our own, seen late
    monkeypatch.setattr("marketplace.chain.receipts.LOST_AFTER", broadcasting.BUMP_AFTER * 0)
    track_receipts()
    intent.refresh_from_db()
    assert intent.state == "failed" and "not ours" in intent.reason
    assert balance(to) == 0


def test_a_reorganised_block_sends_the_intent_back_and_in_again(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasting, "REBROADCAST_AFTER", broadcasting.REBROADCAST_AFTER * 0)
    intent, to = promise_mint("mint:1")
    assign_nonces()
    broadcast_due()
    chain.anvil.mine()
    track_receipts()
    assert all_in("included", intent)()
    chain.anvil.ask("anvil_reorg", 1, [])
    assert balance(to) == 0
    track_receipts()
    intent.refresh_from_db()
    assert (intent.state, intent.block) == ("sent", None)
    chain.drive(all_in("final", intent))
    assert (balance(to), chain.sent_transactions(), Attempt.objects.count()) == (1, 1, 1)


def test_an_intent_whose_block_was_replaced_by_another_with_it_is_tracked_there(chain: Chain) -> None:
    chain.anvil.mine(3)  # the sender's coins are older than what is replaced
    intent, to = promise_mint("mint:1")
    assign_nonces()
    broadcast_due()
    chain.anvil.mine()
    track_receipts()
    before = Intent.objects.get()
    raw = Attempt.objects.get().raw
    chain.anvil.ask("anvil_reorg", 2, [[raw, 0]])
    track_receipts()
    after = Intent.objects.get()
    assert after.state == "included" and after.block_hash != before.block_hash
    assert after.block == (before.block or 0) - 1
    chain.drive(all_in("final", intent))
    assert balance(to) == 1


def test_nothing_is_judged_by_a_node_that_is_behind(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lagging node would refuse what is fine, and a refusal is for good."""
    monkeypatch.setattr("marketplace.chain.nonces.newest_seen", lambda: 10**9)
    promise_mint("mint:1")
    with pytest.raises(HyperGPUError) as refusal:
        assign_nonces()
    assert refusal.value.code == "chain.node_behind"
    assert Intent.objects.get().nonce is None
