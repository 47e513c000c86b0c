"""What ./scripts/test says of a stage: how many passed, and which tests had to run twice."""

from __future__ import annotations

from scripts.hypergpu_test.stages import closing_lines

RERUN = """\
F.R..                                                                    [100%]
=========================== rerun test summary info ============================
RERUN tests/flow/test_a.py::test_b
1982 passed, 1 rerun in 376.71s (0:06:16)
"""


def test_a_test_that_ran_twice_is_named_beside_the_number_of_those_that_passed(tmp_path):
    log = tmp_path / "pytest.log"
    log.write_text(RERUN)
    assert closing_lines(log) == ["1982 passed, 1 rerun in 376.71s (0:06:16)", "RERUN tests/flow/test_a.py::test_b"]
