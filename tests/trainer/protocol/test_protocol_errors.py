"""The one error family."""

import copy

from trainer.protocol.errors import HyperGPUError


def test_an_error_crosses_process_pools_whole():
    """By the protocol that pickling and copying share."""
    error = HyperGPUError("spec.invalid", "Say which.", field="rounds")
    again = copy.copy(error)
    assert (str(again), again.as_json()) == (str(error), error.as_json())
