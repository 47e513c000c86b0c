import pytest
import torch
from torch import nn

from trainer.data import Dataset, load_dataset
from trainer.diloco.checkpoint import initial_checkpoint, load_checkpoint
from trainer.diloco.local import NodeState, run_local_steps
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import DataSpec, JobSpec

torch.set_num_threads(1)
SPEC = JobSpec()


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataSpec(), files={})


@pytest.fixture(scope="session")
def base(digits) -> dict[str, torch.Tensor]:
    state = NodeState(SPEC, digits.info, device=torch.device("cpu"))
    return load_checkpoint(initial_checkpoint(SPEC, digits.info), shapes=state.shapes)


@pytest.fixture(scope="session")
def model(digits) -> nn.Module:
    return NodeState(SPEC, digits.info, device=torch.device("cpu")).model


@pytest.fixture(scope="session")
def honest(digits, base):
    """Pseudo-gradients of three honest nodes from the same base, by node id."""
    updates = {}
    for node in (1, 2, 3):
        order = WorkOrder(
            job_id=1, round=0, node_id=node, fence=1, deadline=2**31, base="0" * 64, shard=node, shards=4, seed=node, spec=SPEC
        )
        state = NodeState(SPEC, digits.info, device=torch.device("cpu"))
        updates[node] = run_local_steps(state, order, base, digits).pseudo_gradient
    return updates
