"""Near nodes on the virtual clock: who carries whose upload, who gives whom the outer step, as agents do on real sockets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from trainer.network.facts import NodeFacts
from trainer.network.links import passed_on, transferred
from trainer.network.policy import Plan
from trainer.network.regions import source_of
from trainer.network.sources import Patience
from trainer.simulation.network import Network


class Regions:
    """Of one round. All transfers of a kind go at once, the worst case: what a node carries or gives shares its uplink equally.
    Ask about nodes in `order`: whoever gives comes before those that it gives to. `gone`: when one has crashed; it is not back
    before the round's end. `patience` by node outlasts the round."""

    def __init__(self, network: Network, facts: Sequence[NodeFacts], plan: Plan, patience: Mapping[int, Patience]) -> None:
        self.network, self.inside, self.patience = network, network.inside, patience
        self.facts = {fact.node_id: fact for fact in facts if fact.node_id in plan.parts}
        self.vias = {node: part.via for node, part in plan.parts.items()}
        self.carried = Counter(via for via in self.vias.values() if via is not None)
        self.order = sorted(plan.parts, key=lambda node: (node not in self.carried, node))
        found = {node: source_of(fact, among=self.facts, gatherers=self.carried) for node, fact in self.facts.items()}
        self.sources = {node: source for node, source in found.items() if source is not None} if plan.gathers else {}
        self.fed = Counter(self.sources.values())
        self.fetched_at: dict[int, float] = {}
        self.gone: dict[int, float] = {}

    def fetched(self, node: int, start: float, size: float) -> tuple[float, int | None]:
        """When the outer step that a node asks for at `start` is there, and which node gave it. A source that has not got it by
        the time the coordinator's would be here, or takes twice that time, is given up."""
        machine, server, source = self.network.machines[node], self.network.coordinator, self.sources.get(node)
        if source is None or not self.patience[node].may_ask(source, start):
            came = transferred(server, machine, start, size)
        else:
            fact = self.facts[node]
            usual = fact.rtt_s.value + size / fact.down.value
            has = max(start, self.fetched_at.get(source, math.inf))
            given_up = start + usual
            if has <= given_up:
                sharing, given_up = self.fed[source], max(start, min(start + 2 * usual + 1, self.gone.get(source, math.inf)))
                came = transferred(self.inside[source], self.inside[node], has, size, sharing=sharing)
            if has > start + usual or came > given_up:
                self.patience[node].failed(source, given_up)
                came, source = transferred(server, machine, given_up, size), None
            else:
                self.patience[node].kept(source)
        self.fetched_at[node] = came
        return came, source

    def sent(self, node: int, start: float, size: float) -> tuple[float, bool]:
        """When an upload that begins at `start` has come, and whether it had to go direct after all: a gatherer that breaks off,
        or takes longer than the direct way should, is given up, and all of the file is sent again."""
        machine, server, via = self.network.machines[node], self.network.coordinator, self.vias[node]
        if via is None or not self.patience[node].may_ask(via, start):
            return transferred(machine, server, start, size, sharing=1 + self.carried[node]), via is not None
        fact = self.facts[node]
        legs = [(self.inside[node], self.inside[via]), (self.network.machines[via], server)]
        came = passed_on(legs, start, size, sharing=1 + self.carried[via])
        given_up = max(start, min(start + fact.rtt_s.value + size / fact.up.value, self.gone.get(via, math.inf)))
        if came <= given_up:
            self.patience[node].kept(via)
            return came, False
        self.patience[node].failed(via, given_up)
        return transferred(machine, server, given_up, size), True
