"""Kill the sender anywhere, start it again: one transaction for each promise, and none lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test import override_settings

from marketplace.chain import broadcasting, follower, nonces, receipts, rpc, states
from marketplace.chain.models import Attempt, ChainLog, Intent, SenderAccount
from marketplace.chain.rpc import Call, Node
from marketplace.chain.sender import assign_nonces, broadcast_due
from tests.chain.conftest import Chain, all_in, balance, events_on_chain, promise_mint
from tests.support.anvil import deployed, start_anvil, wait_until

pytestmark = pytest.mark.chain


class Killed(BaseException):
    """Nothing in the product catches this: what follows is as lost as after kill -9."""


def die(*_: object, **__: object) -> None:
    raise Killed


def die_before_broadcast(node: Node, calls: Sequence[Call]) -> list[Any]:
    if any(method == "eth_sendRawTransaction" for method, _ in calls):
        raise Killed
    return REAL_ANSWERS(node, calls)


def die_after_broadcast(node: Node, calls: Sequence[Call]) -> list[Any]:
    answers = REAL_ANSWERS(node, calls)
    if any(method == "eth_sendRawTransaction" for method, _ in calls):
        raise Killed
    return answers


REAL_ANSWERS = Node.answers
POINTS = {
    "before the nonce is bound": (nonces, "take_nonce", die),
    "after the nonce, before the bytes are signed": (broadcasting, "sign_attempt", die),
    "after the bytes are committed, before they leave": (Node, "answers", die_before_broadcast),
    "after the broadcast, before it is noted": (Node, "answers", die_after_broadcast),
    "inside the transaction that notes a state": (states, "project_intent", die),
    "after the block, before the receipt is noted": (receipts, "follow", die),
}


@pytest.mark.django_db
@pytest.mark.parametrize("point", POINTS)
def test_a_sender_killed_at_any_step_sends_each_promise_once(chain: Chain, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    promises = [promise_mint(f"mint:{n}") for n in range(2)]
    where, name, death = POINTS[point]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, death)
        with pytest.raises(Killed):
            for _ in range(3):
                follower.pass_once()
                chain.anvil.mine()
    rpc.connect.cache_clear()
    monkeypatch.setattr(broadcasting, "REBROADCAST_AFTER", broadcasting.REBROADCAST_AFTER * 0)
    chain.drive(all_in("final", *(intent for intent, _ in promises)))
    assert [balance(to) for _, to in promises] == [1, 1]
    assert chain.sent_transactions() == 2
    assert set(Intent.objects.values_list("nonce", flat=True)) == {0, 1}
    assert SenderAccount.objects.get().next_nonce == 2


@pytest.mark.django_db(transaction=True)
def test_bytes_are_committed_before_they_leave(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    promise_mint("mint:1")
    seen: list[tuple[int, str]] = []

    def look_from_outside(node: Node, calls: Sequence[Call]) -> list[Any]:
        def look() -> None:
            seen.extend(Attempt.objects.values_list("number", "raw"))
            connections.close_all()

        if calls and calls[0][0] == "eth_sendRawTransaction":
            other = threading.Thread(target=look)
            other.start()
            other.join()
            assert seen == [(1, calls[0][1][0])]
        return REAL_ANSWERS(node, calls)

    monkeypatch.setattr(Node, "answers", look_from_outside)
    assign_nonces()
    broadcast_due()
    assert len(seen) == 1


@pytest.mark.django_db(transaction=True)
def test_two_senders_at_once_never_give_two_nonces_to_one_intent(chain: Chain) -> None:
    promises = [promise_mint(f"mint:{n}") for n in range(12)]
    barrier, errors = threading.Barrier(2), []

    def send() -> None:
        try:
            barrier.wait(60)
            for _ in range(4):
                assign_nonces()
                broadcast_due()
        except Exception as error:  # noqa: BLE001  shown by the assertion below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert set(Intent.objects.values_list("nonce", flat=True)) == set(range(12))
    chain.drive(all_in("final", *(intent for intent, _ in promises)))
    assert [balance(to) for _, to in promises] == [1] * 12
    assert chain.sent_transactions() == 12


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_the_real_follower_under_kill_9_sends_each_promise_once(tmp_path: Path) -> None:
    with start_anvil(block_seconds=0.2) as anvil:
        env = deployed(anvil, tmp_path)
        chain = Chain(anvil, tmp_path, env)
        with override_settings(HYPERGPU=env):
            promises = [promise_mint(f"mint:{n}", group=f"g:{n % 4}") for n in range(16)]
            intents = [intent for intent, _ in promises]
            for sent in (2, 5, 9, 13):
                run_until_killed(chain, after=sent)
            process = subprocess.Popen([sys.executable, "manage.py", "follow_chain"], env=child_environment(chain))
            try:
                wait_until(all_in("final", *intents), what="every promise to be final")
            finally:
                process.terminate()
                assert process.wait(60) == 0
            assert [balance(to) for _, to in promises] == [1] * 16
            assert chain.sent_transactions() == 16
            read = list(ChainLog.objects.values_list("block", "log_index"))
            assert read == events_on_chain(chain) and len(read) > 0


def run_until_killed(chain: Chain, *, after: int) -> None:
    """The product's process, until so many intents were sent and a moment more."""
    process = subprocess.Popen([sys.executable, "manage.py", "follow_chain"], env=child_environment(chain))
    wait_until(lambda: Intent.objects.exclude(sent_at=None).count() >= after, what="the follower to send")
    time.sleep(random.uniform(0, 0.3))  # any moment is as good as another
    process.kill()
    process.wait(60)


def child_environment(chain: Chain) -> dict[str, str]:
    """The product's own settings, on this test's chain and database."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.chain.child_settings",
        "HYPERGPU_TEST_DATABASE": str(connection.settings_dict["NAME"]),
        "HYPERGPU_RPC_URLS": ",".join(chain.env.rpc_urls),
        "HYPERGPU_DEPLOYMENT_FILE": str(chain.folder / "deployment.json"),
        "HYPERGPU_SENDER_KEYS": ",".join(key.get_secret_value() for key in chain.env.sender_keys),
    }
