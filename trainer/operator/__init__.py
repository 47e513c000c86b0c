"""The agent on an operator's GPU machine: one node, one GPU, one hot key.

Reading order, as an order goes: `agent.py` (hello, lease, hand in) -> `pulse.py` (heartbeats meanwhile) -> `client.py`
(signed requests) -> `engine.py` over `broker.py` (the local Celery worker) -> `worker.py`, `tasks.py`, `replica.py` (where
torch is) -> `results.py` (what survives a crash). Everything but those and `benchmark.py` is free of torch.
"""
