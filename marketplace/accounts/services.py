"""Sign-in with a wallet."""

from __future__ import annotations

import secrets
from datetime import timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone
from rest_framework.request import Request

from marketplace.accounts import siwe
from marketplace.accounts.models import Account, SignInNonce
from trainer.protocol.errors import HyperGPUError

NONCE_LIFE = timedelta(minutes=5)


def signed_in(request: Request) -> str:
    """Address of the wallet behind `request`. Raises HyperGPUError `auth.required`."""
    if not isinstance(request.user, Account):
        raise HyperGPUError("auth.required", "Connect your wallet and sign in first.")
    return request.user.address


def issue_nonce() -> str:
    """A fresh single-use nonce; expired ones are swept on the way."""
    now = timezone.now()
    SignInNonce.objects.filter(expires_at__lt=now).delete()
    return SignInNonce.objects.create(nonce=secrets.token_hex(12), expires_at=now + NONCE_LIFE).nonce


def sign_in(*, message: str, signature: str) -> Account:
    """The account whose wallet signed `message` for this site, this chain and now.

    Raises HyperGPUError `auth.malformed`, `auth.nonce_unknown`, `auth.wrong_domain`, `auth.wrong_chain`, `auth.expired`,
    `auth.bad_signature` or `signature.*`. The nonce is spent before the rest is looked at, whatever comes of it.
    """
    now = timezone.now()
    parsed = siwe.parse(message)
    spent, _ = SignInNonce.objects.filter(nonce=parsed.nonce, expires_at__gte=now).delete()
    if not spent:
        raise HyperGPUError("auth.nonce_unknown", "This sign-in message was used before or is too old; ask for a new one.")
    site = urlsplit(settings.HYPERGPU.public_url)
    if parsed.domain != site.netloc or urlsplit(parsed.uri).netloc != site.netloc:
        raise HyperGPUError("auth.wrong_domain", f"The message is for {parsed.domain}; this site is {site.netloc}.")
    if parsed.chain_id != settings.HYPERGPU.chain_id:
        raise HyperGPUError(
            "auth.wrong_chain", f"The message names chain {parsed.chain_id}; switch to {settings.HYPERGPU.chain_id}."
        )
    too_late = parsed.expiration_time is not None and now >= parsed.expiration_time
    too_early = parsed.not_before is not None and now < parsed.not_before
    if too_late or too_early:
        raise HyperGPUError("auth.expired", "The sign-in message is not valid at this time; ask for a new one.")
    if parsed.signer(signature) != parsed.address:
        raise HyperGPUError("auth.bad_signature", f"{parsed.address} did not sign this message.")
    return Account.objects.get_or_create(address=parsed.address)[0]
