"""Every setting, typed, read once from the environment (`HYPERGPU_...`). Nothing else reads os.environ."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from marketplace.chain.profiles import COIN, GWEI, Profile, profile_of
from trainer.network.policy import Settings as PolicySettings
from trainer.network.transfers import MOST_BODY

ROOT = Path(__file__).parents[2]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HYPERGPU_", extra="ignore")

    state_dir: Path = Field(default=ROOT / ".state", description="Database (SQLite), artifacts and keys of the embedded default.")
    database_url: str = Field(default="", description="postgresql://user:pass@host/name; empty: SQLite in state_dir.")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Broker and channel layer; may lose everything.")
    secret_key: SecretStr = Field(default=SecretStr(""), description="Django's secret; made and kept in state_dir when empty.")
    debug: bool = False
    hosts: Annotated[list[str], NoDecode] = Field(
        default=["127.0.0.1", "localhost", "[::1]"], description="Comma-separated host names."
    )
    public_url: str = Field(default="http://127.0.0.1:8000", description="How browsers reach the page; wallet sign-in checks it.")

    rpc_urls: Annotated[list[str], NoDecode] = Field(
        default=["http://127.0.0.1:8545"],
        description="Comma-separated chain nodes; the first that answers is asked, all are told.",
    )
    wallet_rpc_url: str = Field(default="", description="RPC that wallets are given; empty: the first of rpc_urls.")
    chain_id: int = 31337
    chain_name: str = Field(default="", description="This and the next eight describe a chain; empty: as chain/profiles.py says.")
    block_seconds: float | None = Field(default=None, gt=0, description="Expected time between blocks.")
    chain_currency: str = Field(default="", description="What gas is paid in.")
    chain_explorer_url: str = ""
    chain_gas: Literal["", "ethereum", "monad"] = Field(default="", description="Price list of gas.")
    chain_real_money: bool | None = Field(default=None, description="Whether plain keys and the test token are refused.")
    chain_log_range: int | None = Field(default=None, ge=1, description="Most blocks of one eth_getLogs.")
    fee_ceiling_gwei: float | None = Field(default=None, gt=0, description="Price of gas above which the sender waits.")
    sender_min_balance: float | None = Field(default=None, ge=0, description="Coins below which a sender account alarms.")
    deployment_file: Path | None = Field(default=None, description="JSON that deploy_contracts writes; default in state_dir.")

    coordinator_key: SecretStr = Field(default=SecretStr(""), description="Signs work orders, and the consent to seats.")
    attestor_key: SecretStr = Field(default=SecretStr(""), description="Of one attestor; set for that attestor's worker alone.")
    sender_keys: Annotated[list[SecretStr], NoDecode] = Field(
        default=[], description="Comma-separated keys that pay gas; they have no authority over money."
    )
    challenger_key: SecretStr = Field(
        default=SecretStr(""), description="Opens cases at the court and posts their bonds; empty: failed audits take no money."
    )
    admin_key: SecretStr = Field(default=SecretStr(""), description="Deploys the contracts, and administers their timelock.")

    settlement_mode: Literal["batched", "per-receipt"] = Field(
        default="batched", description="per-receipt: each contribution is put on chain as it arrives, too."
    )
    pause_limit_seconds: int = Field(default=7 * 86_400, ge=0, description="A job that is paused for longer without money ends.")
    lease_seconds: int = Field(default=15, ge=2, description="A lease that no heartbeat renews for this long is taken back.")
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    offline_seconds: int = Field(default=15, ge=2, description="A node that was not heard for this long is offline.")
    max_artifact_bytes: int = Field(
        default=8 * 2**30, description="Largest file; jobs whose contributions, checkpoints or audits may need more are refused."
    )
    max_body_bytes: int = Field(
        default=512 * 2**20, ge=MOST_BODY, description="Largest body of one request; nodes send larger files in pieces."
    )
    compute_threads: int = Field(
        default=1, ge=1, description="Of one computation on a CPU; a round's scores are computed on all cores beside each other."
    )
    least_free_bytes: int = Field(
        default=5 * 2**30, ge=0, description="Of the disk: with less, an alarm is raised and no data sets are taken."
    )
    least_deadline_seconds: float = Field(default=10.0, ge=0, description="A round is left open for this long at least.")
    network: PolicySettings = Field(
        default=PolicySettings(), description="Weights and limits of the policy and of nodes' health, as JSON (trainer.network)."
    )
    emulated: str = Field(default="", description="Label of emulated conditions, shown wherever figures show.")

    @model_validator(mode="before")
    @classmethod
    def split_lists(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in ("hosts", "rpc_urls", "sender_keys"):
            if isinstance(values.get(name), str):
                values[name] = [item.strip() for item in values[name].split(",") if item.strip()]
        return values

    @model_validator(mode="after")
    def health_is_a_part_of_one(self) -> Settings:
        health = self.network.health
        if not math.isclose(health.compute + health.network + health.quality + health.uptime, 1.0):
            raise ValueError("the weights of health (compute, network, quality, uptime) must sum up to 1")
        if not 0 <= health.low <= health.normal <= health.high <= 1:
            raise ValueError("the limits of health must rise from low over normal to high, between 0 and 1")
        return self

    @cached_property
    def chain(self) -> Profile:
        """The chain in use: its row of the table, with what the settings say otherwise."""
        gwei, coins = self.fee_ceiling_gwei, self.sender_min_balance
        said = {
            "name": self.chain_name, "block_seconds": self.block_seconds, "currency": self.chain_currency,
            "explorer_url": self.chain_explorer_url, "gas": self.chain_gas, "log_range": self.chain_log_range,
            "real_money": self.chain_real_money,
            "fee_ceiling": None if gwei is None else int(gwei * GWEI),
            "min_balance": None if coins is None else int(coins * COIN),
        }  # fmt: skip
        changes: dict[str, Any] = {name: value for name, value in said.items() if value not in (None, "")}
        return replace(profile_of(self.chain_id), **changes)

    @cached_property
    def deployment_path(self) -> Path:
        return self.deployment_file or self.state_dir / "deployment.json"

    @cached_property
    def deployment(self) -> dict[str, Any]:
        """Addresses on the chain in use, as `manage.py deploy_contracts` wrote them; empty before that."""
        path = self.deployment_path
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def market_address(self) -> str:
        return str(self.deployment.get("market", ""))

    @property
    def token_address(self) -> str:
        return str(self.deployment.get("token", ""))
