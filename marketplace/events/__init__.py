"""The event log: what happened, in order, per topic. `emit()` is the only side effect of a write."""
