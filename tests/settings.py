"""Settings of the tests: the product's own, in a folder that is thrown away, with keys that are worth nothing."""

import json
import os
import tempfile
from pathlib import Path

from eth_utils import keccak

STATE = Path(tempfile.mkdtemp(prefix="hypergpu-tests-"))
(STATE / "deployment.json").write_text(
    json.dumps(
        {
            "chainId": 31337,
            "market": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
            "token": "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512",
            "registry": "0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0",
            "court": "0xCf7Ed3AccA5a467e9e704C703E8D87F634fB0Fc9",
            "terms": {
                "market": {"minStake": 1000000, "exitNotice": 3600, "challengeWindow": 600},
                "registry": {"epochLength": 600},
                "court": {"tolerance": 500},
            },
            "tokenInfo": {"name": "HyperGPU Test USD", "symbol": "tUSD", "decimals": 6},
        }
    )
)


def test_key(name: str) -> str:
    return "0x" + keccak(text=f"hypergpu test key: {name}").hex()


ATTESTORS = ("attestor 0", "attestor 1", "attestor 2")
"""Names of the keys of the attestor set; in no process's settings but that of each one's own worker."""

os.environ["HYPERGPU_STATE_DIR"] = str(STATE)
os.environ["HYPERGPU_LEAST_FREE_BYTES"] = "0"
os.environ["HYPERGPU_PUBLIC_URL"] = "http://testserver"
os.environ["HYPERGPU_HOSTS"] = "testserver,localhost,127.0.0.1"
os.environ["HYPERGPU_COORDINATOR_KEY"] = test_key("coordinator")
os.environ["HYPERGPU_SENDER_KEYS"] = test_key("sender")
os.environ["HYPERGPU_ADMIN_KEY"] = test_key("admin")

from marketplace.config.settings import *  # noqa: E402, F403

# Sockets are tested against a real Redis in tests/flow; here the layer and the broker stay in the process.
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_EAGER_PROPAGATES = True
