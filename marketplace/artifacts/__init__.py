"""Content-addressed blobs: checkpoints, pseudo-gradients, data sets, evidence. Named by SHA-256, written once."""
