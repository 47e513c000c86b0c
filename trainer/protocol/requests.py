"""How an agent signs each request to the coordinator: EIP-191 over a text that names all that could be changed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from eth_account import Account
from eth_account.messages import SignableMessage, encode_defunct

from trainer.protocol.eip712 import recover_payload
from trainer.protocol.errors import HyperGPUError

MAX_SKEW_SECONDS = 60
"""A request whose time differs more from the server's is refused; nonces are remembered twice as long."""

HEADER_KEY = "X-HyperGPU-Key"
HEADER_TIME = "X-HyperGPU-Time"
HEADER_NONCE = "X-HyperGPU-Nonce"
HEADER_BODY = "X-HyperGPU-Body"
HEADER_SIGNATURE = "X-HyperGPU-Signature"


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedRequest:
    """What a request signature covers. `query` is the raw query string, `body_sha256` 64 hex digits, `time` unix seconds."""

    method: str
    path: str
    query: str
    body_sha256: str
    audience: str
    time: int
    nonce: str

    def payload(self) -> SignableMessage:
        lines = ["HyperGPU request", self.method.upper(), self.path, self.query, self.body_sha256]
        return encode_defunct(text="\n".join([*lines, self.audience, str(self.time), self.nonce]))


def sign_request(
    *, method: str, path: str, query: str, body_sha256: str, audience: str, private_key: str | bytes
) -> dict[str, str]:
    """Headers for one request. `audience` is the coordinator's host[:port] as the agent addresses it."""
    account = Account.from_key(private_key)
    request = SignedRequest(
        method=method, path=path, query=query, body_sha256=body_sha256, audience=audience,
        time=int(time.time()), nonce=secrets.token_hex(16),
    )  # fmt: skip
    signature = "0x" + bytes(account.sign_message(request.payload()).signature).hex()
    return {
        HEADER_KEY: account.address,
        HEADER_TIME: str(request.time),
        HEADER_NONCE: request.nonce,
        HEADER_BODY: body_sha256,
        HEADER_SIGNATURE: signature,
    }


def verify_request(*, method: str, path: str, query: str, audience: str, headers: Mapping[str, str], now: int) -> SignedRequest:
    """The request that `headers` sign; the caller still compares the body's hash and the nonce's freshness.

    Raises HyperGPUError `request.unsigned`, `request.clock_skew`, `signature.*` or `request.wrong_key`.
    """
    missing = [name for name in (HEADER_KEY, HEADER_TIME, HEADER_NONCE, HEADER_BODY, HEADER_SIGNATURE) if not headers.get(name)]
    if missing:
        raise HyperGPUError("request.unsigned", f"Sign the request with the node's hot key; missing: {', '.join(missing)}.")
    if not headers[HEADER_TIME].isdecimal() or len(headers[HEADER_TIME]) > 12:
        raise HyperGPUError("request.clock_skew", "The request's time is not in unix seconds.")
    request = SignedRequest(
        method=method, path=path, query=query, body_sha256=headers[HEADER_BODY], audience=audience,
        time=int(headers[HEADER_TIME]), nonce=headers[HEADER_NONCE],
    )  # fmt: skip
    if abs(now - request.time) > MAX_SKEW_SECONDS:
        raise HyperGPUError("request.clock_skew", f"The request's clock is off by more than {MAX_SKEW_SECONDS} s; set the time.")
    if not 16 <= len(request.nonce) <= 64:
        raise HyperGPUError("request.unsigned", "The request's nonce is 16 to 64 characters.")
    if recover_payload(request.payload(), headers[HEADER_SIGNATURE]).lower() != headers[HEADER_KEY].lower():
        raise HyperGPUError("request.wrong_key", "The signature was not made by the key that the request names.")
    return request
