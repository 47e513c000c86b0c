#!/usr/bin/env python3
"""Binds the clear-signing descriptors (ERC-7730) to a deployment, ready for a wallet or the public registry.

    scripts/clear_signing.py DEPLOYMENT.json FOLDER

Those in contracts/clear-signing say what each call and message means, whatever chain it is on; a wallet shows them only for
the addresses that they name, which are a deployment's. Includes are merged, so that each written file stands alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "contracts" / "clear-signing"
TARGETS = {
    "calldata-ComputeMarket": "market",
    "calldata-AttestorRegistry": "registry",
    "calldata-DisputeCourt": "court",
    "eip712-ComputeMarket": "market",
    "eip712-ReceiveWithAuthorization": "token",
}
"""Descriptor, and the key of the deployment file under which its contract stands."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", type=Path, help="as manage.py deploy_contracts wrote it")
    parser.add_argument("folder", type=Path, help="where the descriptors go")
    arguments = parser.parse_args()
    deployment = json.loads(arguments.deployment.read_text("utf-8"))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, target in TARGETS.items():
        descriptor = bind(read(name), chain_id=deployment["chainId"], address=deployment[target], token=deployment["token"])
        (arguments.folder / f"{name}.json").write_text(json.dumps(descriptor, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


def read(name: str) -> dict[str, Any]:
    """A descriptor with its includes merged in; what the including file says goes first (ERC-7730, "Organizing files")."""
    descriptor: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    included = descriptor.pop("includes", None)
    return merge(read(Path(included).stem), descriptor) if included else descriptor


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def bind(descriptor: dict[str, Any], *, chain_id: int, address: str, token: str) -> dict[str, Any]:
    """The descriptor for the contract at `address`, whose amounts are in `token`."""
    bound = copy.deepcopy(descriptor)
    context = bound["context"]
    context["contract" if "contract" in context else "eip712"]["deployments"] = [{"chainId": chain_id, "address": address}]
    bound["metadata"]["maps"]["token"]["values"] = {str(chain_id): token}
    return bound


if __name__ == "__main__":
    sys.exit(main())
