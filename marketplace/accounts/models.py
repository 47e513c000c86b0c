"""Accounts are wallet addresses; there are no passwords."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class AccountManager(BaseUserManager["Account"]):
    def get_by_natural_key(self, username: str | None) -> Account:
        return self.get(address=username)


class Account(AbstractBaseUser):
    """A wallet that has signed in; `address` is checksummed (EIP-55)."""

    address = models.CharField(max_length=42, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    password = None  # type: ignore[assignment]

    USERNAME_FIELD = "address"
    objects = AccountManager()


class SignInNonce(models.Model):
    """A nonce that was handed out and not yet used. Rows, not cache: using one must be exact."""

    nonce = models.CharField(max_length=32, primary_key=True)
    expires_at = models.DateTimeField()
