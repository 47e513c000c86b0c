"""The hot key's side of a delegation: its proof that it agrees to work for a wallet."""

from __future__ import annotations

from urllib.parse import urlencode

from eth_account import Account

from trainer.operator.pinning import Pin
from trainer.protocol.eip712 import Domain, sign
from trainer.protocol.types import Delegation


def possession(domain: Domain, *, operator: str, hot_key_private: str, expires_at: int, nonce: int) -> str:
    """The hot key's signature of Delegation(operator, hotKey, expiresAt, nonce), as `registerNode` and `delegateHotKey` take
    it. `expires_at` is unix seconds; `nonce` is how often this key was delegated before (`delegationNonce` on chain)."""
    hot_key = Account.from_key(hot_key_private).address
    return sign(domain, Delegation(operator=operator, hot_key=hot_key, expires_at=expires_at, nonce=nonce), hot_key_private)


def delegation_document(
    pin: Pin, *, url: str, operator: str, hot_key_private: str, expires_at: int, nonce: int
) -> dict[str, object]:
    """What `hypergpu agent delegate` prints: the arguments of `registerNode`, and the page that fills them in."""
    proof = possession(pin.domain, operator=operator, hot_key_private=hot_key_private, expires_at=expires_at, nonce=nonce)
    hot_key = Account.from_key(hot_key_private).address
    query = urlencode({"hot_key": hot_key, "operator": operator, "expires_at": expires_at, "nonce": nonce, "possession": proof})
    return {
        "hot_key": hot_key,
        "operator": operator,
        "expires_at": expires_at,
        "nonce": nonce,
        "possession": proof,
        "chain_id": pin.chain_id,
        "contract": pin.contract,
        "registerNode": {"hotKey": hot_key, "expiresAt": expires_at, "possession": proof},
        "link": f"{url}/operate?{query}",
    }
