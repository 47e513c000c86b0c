"""Who may import whom. pyproject.toml holds the layers; here is what a linter of layers cannot say."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
TORCH = ("torch", "safetensors", "sklearn", "numpy")
TORCH_FREE = (
    "trainer.network.assignment",
    "trainer.network.health",
    "trainer.network.planner",
    "trainer.network.policy",
    "trainer.scoring.deterrence",
    "trainer.scoring.effort",
    "trainer.scoring.rating",
)
"""Plain arithmetic beside code that needs torch."""
WITH_TORCH = ("trainer.models", "trainer.data", "trainer.diloco", "trainer.scoring", "trainer.operator", "trainer.simulation")


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("marketplace", "trainer", include_external_packages=True, cache_dir=None)


def direct_importers(package: str, *, within: str) -> set[str]:
    """Modules of `within` that import `package` or anything below it."""
    inside = {module for module in graph().modules if module == package or module.startswith(f"{package}.")}
    modules = inside - set(TORCH_FREE)
    importers = {importer for module in modules for importer in graph().find_modules_that_directly_import(module)}
    return {importer for importer in importers if importer.split(".")[0] == within}


def test_the_linter_of_layers_knows_no_exceptions():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert configuration["contracts"]
    assert [contract["name"] for contract in configuration["contracts"] if contract.get("ignore_imports")] == []


@pytest.mark.parametrize("package", [*TORCH, *WITH_TORCH])
def test_the_marketplace_reaches_torch_through_one_door(package):
    assert direct_importers(package, within="marketplace") <= {"marketplace.training.engine"}


def test_web3_is_the_chain_apps_alone():
    importers = direct_importers("web3", within="marketplace") | direct_importers("web3", within="trainer")
    assert importers
    assert all(importer.startswith("marketplace.chain.") for importer in importers)


def loaded_by(statement: str, *packages: str) -> list[str]:
    """Which of `packages` a fresh interpreter has loaded after `statement`."""
    program = f"import sys\n{statement}\nprint(*[name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_web_process_loads_neither_torch_nor_web3():
    assert loaded_by("import marketplace.config.asgi", "django", "torch", "sklearn", "numpy", "web3") == ["django"]


def test_arithmetic_for_web_processes_loads_no_torch():
    statement = "; ".join(f"import {module}" for module in TORCH_FREE)
    assert loaded_by(statement, "torch", "numpy") == []


def test_a_control_worker_loads_neither_torch_nor_web3():
    statement = "import marketplace.config.celery as c; c.app.loader.import_default_modules()"
    assert loaded_by(statement, "marketplace.training.tasks", "torch", "web3") == ["marketplace.training.tasks"]


def test_the_wire_protocol_loads_neither_torch_nor_the_network():
    statement = """
import importlib, pkgutil, trainer.protocol
for module in pkgutil.iter_modules(trainer.protocol.__path__):
    importlib.import_module(f"trainer.protocol.{module.name}")
"""
    assert loaded_by(statement, "trainer.protocol.types", "torch", "numpy", "httpx", "web3") == ["trainer.protocol.types"]


def test_a_verification_needs_neither_torch_nor_django_nor_web3():
    statement = "import trainer.cli, trainer.ledger.settle, trainer.ledger.verify, trainer.ledger.progress"
    packages = ("trainer.ledger.verify", "torch", "numpy", "django", "web3", "celery", "marketplace")
    assert loaded_by(statement, *packages) == ["trainer.ledger.verify"]


def test_the_agent_itself_loads_no_torch():
    assert loaded_by("import trainer.operator.agent", "trainer.operator.client", "torch") == ["trainer.operator.client"]
