"""Wire types that the coordinator, operators, attestors, contracts and pages agree on. No torch, no Django, no web3."""
