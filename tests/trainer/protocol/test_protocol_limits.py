"""What a model asks of an installation follows from its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import checkpoint_limit, evidence_limit, parameters_of, refuse_too_large, upload_limit


@given(st.integers(1, 10**12))
def test_a_size_is_read_back_from_the_limit_of_its_uploads(count):
    assert parameters_of(upload_limit(count)) == count


@given(st.integers(1, 10**10))
def test_what_is_refused_says_what_would_be_enough(count):
    needed = max(upload_limit(count), checkpoint_limit(count), evidence_limit(count))
    refuse_too_large(count, most=needed)
    with pytest.raises(HyperGPUError) as refused:
        refuse_too_large(count, most=needed - 1)
    assert (refused.value.code, refused.value.data["needed"]) == ("model.too_large", needed)
    assert f"HYPERGPU_MAX_ARTIFACT_BYTES raised to {needed}" in refused.value.message
