"""Supply: operators, their nodes, bids, and whether a node can be reached."""
