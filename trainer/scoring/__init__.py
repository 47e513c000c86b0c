"""What a contribution is worth, and whether it is what was ordered.

In every round: `checks.py` (is it an update, and the node's own), `scores.py` (what it does to the held-out loss), `ownership.py`
(does it know the assigned data), `quality.py` (who passes, and the basis points that pay), `rating.py` (who does well for long).
By chance: `sampling.py` (which segment is audited), `evidence.py` (what the node shows), `replay.py` (computing it again),
`calibration.py` (what a difference means), `deterrence.py` (whether cheating pays).

`quality`, `rating` and `deterrence` need no torch.
"""
