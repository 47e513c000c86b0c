"""Virtual clock, real gradients: what a network of unequal nodes would do to a training run.

Reading order: `trainer/network/profiles.py` (nodes and links, from JSON files) -> `trainer/network/links.py` (how long a transfer
takes) -> `clock.py` (what happens when) -> `trainer/network/policy.py` (who does what in a round) -> `attackers.py` -> `run.py`
(a whole run, with the product's own rounds) -> `command.py` (`hypergpu simulate`). Every time in here is emulated; every
gradient is computed.
"""
