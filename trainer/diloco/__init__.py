"""DiLoCo (arXiv:2311.08105): nodes train alone for H steps and exchange only how far they moved.

Reading order, as a round goes:
`local.py` (inner steps, pseudo-gradient) -> `encoding.py` over `tensorfile.py` (its bytes) -> `aggregation.py` (many become
one) -> `outer.py` (the step of the global model) -> `checkpoint.py` (its bytes). `reference.py` runs a whole job in one
process and is the shortest statement of the algorithm.
"""
