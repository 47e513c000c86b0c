"""The one error family."""

import pickle

from trainer.protocol.errors import HyperGPUError


def test_an_error_crosses_process_pools_whole():
    error = HyperGPUError("spec.invalid", "Say which.", field="rounds")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.as_json()) == (str(error), error.as_json())
