from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from eth_account.messages import encode_defunct

from marketplace.accounts.models import SignInNonce
from tests.marketplace.world import wallet

pytestmark = pytest.mark.django_db


def message(nonce: str, *, address: str, domain: str = "testserver", chain: int = 31337, expires: datetime | None = None) -> str:
    now = datetime.now(UTC)
    expires = expires or now + timedelta(minutes=5)
    return (
        f"{domain} wants you to sign in with your Ethereum account:\n{address}\n\n"
        "Sign in to HyperGPU. This costs nothing and moves no funds.\n\n"
        f"URI: http://{domain}\nVersion: 1\nChain ID: {chain}\nNonce: {nonce}\n"
        f"Issued At: {now.isoformat()}\nExpiration Time: {expires.isoformat()}"
    )


def signed(text: str, name: str = "requester") -> dict[str, str]:
    return {"message": text, "signature": "0x" + bytes(wallet(name).sign_message(encode_defunct(text=text)).signature).hex()}


def post(client: Client, path: str, body: object = None) -> object:
    return client.post(f"/api/v1/auth/{path}", body or {}, content_type="application/json")


def test_a_wallet_signs_in_and_out() -> None:
    client = Client()
    nonce = post(client, "nonce").json()["nonce"]
    address = wallet("requester").address
    assert post(client, "login", signed(message(nonce, address=address))).json() == {"address": address}
    assert client.get("/api/v1/auth/session").json() == {"address": address}
    post(client, "logout")
    assert client.get("/api/v1/auth/session").json() == {"address": None}


def test_a_nonce_works_once() -> None:
    client = Client()
    body = signed(message(post(client, "nonce").json()["nonce"], address=wallet("requester").address))
    assert post(client, "login", body).status_code == 200
    again = post(Client(), "login", body)
    assert (again.status_code, again.json()["code"]) == (401, "auth.nonce_unknown")


@pytest.mark.parametrize(
    ("changes", "signer", "code"),
    [
        ({"domain": "evil.example"}, "requester", "auth.wrong_domain"),
        ({"chain": 1}, "requester", "auth.wrong_chain"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "requester", "auth.expired"),
        ({}, "somebody else", "auth.bad_signature"),
    ],
)
def test_what_is_not_for_here_and_now_is_refused(changes: dict, signer: str, code: str) -> None:
    client = Client()
    nonce = post(client, "nonce").json()["nonce"]
    answer = post(client, "login", signed(message(nonce, address=wallet("requester").address, **changes), signer))
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert client.get("/api/v1/auth/session").json() == {"address": None}
    assert not SignInNonce.objects.filter(nonce=nonce).exists(), "a refused nonce is spent all the same"


def test_text_that_is_no_sign_in_message_is_refused() -> None:
    answer = post(Client(), "login", signed("please sign in"))
    assert answer.json()["code"] == "auth.malformed"


def test_sign_in_needs_the_csrf_token() -> None:
    assert Client(enforce_csrf_checks=True).post("/api/v1/auth/nonce").status_code == 403
