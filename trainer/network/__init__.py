"""The network is measured, and training adapts to it: the same code in the live system and on the virtual clock.

Reading order: `facts.py` (what is known of a node, with age and source) -> `estimators.py` (from samples to that) ->
`policy.py` (from facts to a round's plan, each decision with its reason) -> `profiles.py` (networks to emulate: JSON files in
`profiles/`) -> `links.py` (how long a transfer takes on one).
"""
