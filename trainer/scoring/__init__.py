"""What a contribution is worth: `checks.py` (is it an update at all), `scores.py` (what it does to the held-out loss),
`quality.py` (who passes, and the basis points that pay). `quality` needs no torch."""
