"""Who may sign for what, and until when: the market's book of keys and epochs, kept by its events."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.ledger.history import Entry
from trainer.ledger.judging import Book, Epoch
from trainer.protocol.settlement import Pauses

UNBONDING_TIME = 2
"""Which of the terms it is."""


@dataclass(slots=True)
class Signers:
    """Follows the events of keys, epochs, terms and pauses, and keeps `book` as the market has it."""

    book: Book
    hot_keys: dict[int, str] = field(default_factory=dict)
    unbonding_time: int = 0
    epoch: int = 0

    def apply(self, entry: Entry) -> None:
        args, keys, node_id = entry.args, self.book.keys, entry.args.get("nodeId", 0)
        match entry.name:
            case "NodeRegistered":
                keys[node_id] = {args["hotKey"]: args["expiresAt"]}
                self.hot_keys[node_id] = args["hotKey"]
            case "HotKeyDelegated":
                before = self.hot_keys.get(node_id)
                if before and before != args["hotKey"]:
                    keys[node_id][before] = min(entry.time, keys[node_id][before])
                keys.setdefault(node_id, {})[args["hotKey"]] = args["expiresAt"]
                self.hot_keys[node_id] = args["hotKey"]
            case "NodeRetired":
                hot_key = self.hot_keys[node_id]
                keys[node_id][hot_key] = min(keys[node_id][hot_key], entry.time + self.unbonding_time)
            case "EpochBegun":
                if self.epoch:
                    self.book.epochs[self.epoch].ended_at = entry.time
                self.epoch = args["epoch"]
                self.book.epochs[self.epoch] = Epoch(members=args["members"], quorum=args["quorum"])
            case "TermsChanged":
                self.unbonding_time = args["current"][UNBONDING_TIME]
            case "Paused":
                pauses, until = self.book.pauses, args["settlementUntil"]
                since = pauses.since if until == pauses.until else entry.time
                self.book.pauses = Pauses(since=since, until=until)
            case "Unpaused":
                pauses = self.book.pauses
                self.book.pauses = Pauses(since=pauses.since, until=min(pauses.until, entry.time))
