import pytest
import torch
from torch import Tensor, nn

from trainer.data import Dataset, load_dataset
from trainer.diloco.local import NodeState, run_local_steps
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import DataSpec, JobSpec

torch.set_num_threads(1)
SPEC = JobSpec()


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataSpec(), files={})


@pytest.fixture(scope="session")
def state(digits) -> NodeState:
    """A node that has done nothing; nobody trains with it."""
    return NodeState(SPEC, digits.info, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def model(state) -> nn.Module:
    return state.model


@pytest.fixture(scope="session")
def base(state) -> Tensor:
    return state.params()


@pytest.fixture(scope="session")
def honest(digits, base) -> dict[int, Tensor]:
    """Pseudo-gradients of three honest nodes from the same base, by node id."""
    updates = {}
    for node in (1, 2, 3):
        order = WorkOrder(
            job_id=1, round=0, node_id=node, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=node, shards=4,
            seed=node, steps=SPEC.inner.steps, encoding=SPEC.encoding, spec=SPEC,
        )  # fmt: skip
        updates[node] = run_local_steps(
            NodeState(SPEC, digits.info, device=torch.device("cpu")), order, base, digits
        ).pseudo_gradient
    return updates
