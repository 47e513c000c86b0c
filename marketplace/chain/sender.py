"""The sender of the outbox. An intent's way to the chain, each step committed before the next begins:

    enqueue()          the promise, in the transaction of the business change           pending
    assign_nonces()    judged by a dry run; one nonce, its own for good                 pending, with a nonce
    broadcast_due()    signed bytes committed, then sent, and sent again until seen     sent
    track_receipts()   a receipt exists / its block is finalized and canonical          included / final or failed

Kill any process at any point and start it again: what was promised is sent, and with no second nonce. Two senders at
once are slow, not wrong. Method: op-service txmgr (Optimism); research/chain.md section 4.3.
"""

from marketplace.chain.broadcasting import broadcast_due
from marketplace.chain.nonces import assign_nonces
from marketplace.chain.receipts import track_receipts

__all__ = ["assign_nonces", "broadcast_due", "track_receipts"]
