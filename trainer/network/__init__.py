"""The network is measured, and training adapts to it: the same code in the live system and on the virtual clock.

Reading order: `facts.py` (what is known of a node, with age and source) -> `estimators.py` (from samples to that) ->
`health.py` (who takes part) -> `encodings.py` (what a link carries) -> `steps.py` (all finish together) -> `predict.py` (when
each is done, when the round closes) -> `policy.py` (the plan of a round, each decision with its reason) -> `curve.py`,
`planner.py` (who would train a job, until when, for how much) -> `assignment.py` (several jobs share the operators).
`profiles.py`: networks to emulate, JSON files in `profiles/`; `links.py`: how long a transfer takes on one; `shaper.py`: the
same on real sockets. `transfers.py`, `erasure.py`: how a file goes over a bad link.
"""
