"""The only place with web3: contracts, signer, outbox sender, indexer."""
