"""What a stranger needs to check a market, and to settle in its place: an RPC address and a contract address."""
