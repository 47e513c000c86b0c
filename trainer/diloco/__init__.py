"""DiLoCo (arXiv:2311.08105): nodes train alone for H steps and exchange only how far they moved.

Reading order, as a round goes:
`local.py` over `inner.py` (inner steps, pseudo-gradient) -> `encoding.py` (its bytes; docs/wire-format.md) -> `round.py` (judged
by `trainer.scoring`; then `aggregation.py` over `exact.py`: many become one; `outer.py`: the step of the global model, encoded
once for all) -> `version.py` (the Merkle root that names the result), `checkpoint.py` (its bytes) -> `evidence.py` (the document
from which anyone computes the round again). `reference.py` runs a whole job in one process and is the shortest statement of the
algorithm; `sharded.py` is the inner loop of an operator with several GPUs.
"""
