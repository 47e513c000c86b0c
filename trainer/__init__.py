"""The training side of HyperGPU: PyTorch, the wire protocol and the operator's agent. Knows no Django and no web3."""
