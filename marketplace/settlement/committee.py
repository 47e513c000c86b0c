"""An attestor in a committee of the court: what it finds a receipt to be worth, from public evidence, and its vote on chain.

The rule of a quality case. Where replay audits have proven the contribution false, the member computes their segments again on
its own machine: 0 when one of them fails here too, else what was paid. Where there is no such audit, the case is about the score:
what the round's evidence gives, computed again. A member takes nobody's word: what it replays must be what a quorum has attested.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from django.conf import settings

from marketplace.chain.services import contract_address, market_view
from marketplace.chain.wallet import send
from marketplace.settlement.attesting import blob, evidence_before, found_by_court, settled
from marketplace.settlement.attestor import Attestor
from marketplace.training import selectors
from marketplace.training.models import Audit, Case, Round
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder
from trainer.protocol.rounds import Earlier

COMMITTING, REVEALING = 4, 5
"""IDisputeCourt.Stage."""
NOTHING = "0x" + "00" * 32
MODEL = ("spec", "base", "checkpoint")


def serve(me: Attestor, case: Case) -> None:
    """The member's next step, as the court itself stands: whoever sent it before, or died before, is seen there.

    Raises HyperGPUError `court.lost_vote`, `court.other_case`, `artifact.*` when an input cannot be had, and those of
    `wallet.send`.
    """
    court, case_id = contract_address("court"), case.chain_id
    if case_id is None:
        return
    said = market_view("getCase", case_id, contract="court", block="latest")
    number = market_view("attestorOf", me.address, contract="registry", block="latest")
    ballot = market_view("getVote", case_id, number, contract="court", block="latest")
    if not ballot["drawn"] or ballot["revealed"]:
        return
    if ballot["commitment"] == NOTHING and said["stage"] == COMMITTING:
        kept = me.finding(court, case_id)
        vote = me.vote(court, case_id, me.decide(court, case_id, finding(case, said)) if kept is None else kept)
        call("commitVote", [case_id, vote.commitment])
    elif ballot["commitment"] != NOTHING and (said["stage"] == REVEALING or time.time() >= said["deadline"]):
        kept = me.finding(court, case_id)
        vote = me.vote(court, case_id, finding(case, said) if kept is None else kept)
        if vote.commitment != ballot["commitment"]:
            raise HyperGPUError("court.lost_vote", "The finding that it has committed to is not in its folder any more.")
        call("revealVote", [case_id, vote.finding, vote.salt])


def call(function: str, args: list[Any]) -> None:
    """From the attestor's own account, which needs gas for it."""
    key = settings.HYPERGPU.attestor_key.get_secret_value()
    send(key, function, args, contract="court", wait_final=False)


def finding(case: Case, said: dict[str, Any]) -> int:
    """What the receipt is worth, in basis points; `said` is the case as the court has it. Raises as `serve`."""
    contribution, round_ = case.contribution, case.contribution.round
    place = round_.job.chain_id, round_.number, contribution.node_id, "0x" + contribution.artifact
    if place != (said["job_id"], said["round"], said["node_id"], said["artifact"]):
        raise HyperGPUError("court.other_case", f"Case {case.chain_id} is not about the contribution that it is kept for here.")
    evidence = said["evidence"].removeprefix("0x")
    proven = Audit.objects.filter(contribution=contribution, state=Audit.State.FAILED, shadow=False, proven=True)
    accused = list(proven.select_related("contribution__round__job", "contribution__assignment"))
    if not accused:
        scores = found_by_court(evidence, evidence_before(round_), selectors.job_work(round_.job))
        return scores.get(contribution.node_id, 0)
    document = json.loads(blob(evidence))
    return 0 if any(fails(audit, document) for audit in accused) else int(said["paid"])


def fails(audit: Audit, document: dict[str, Any]) -> bool:
    """Whether the segment, computed again here, proves the contribution false, by the tolerance that nobody can move."""
    from marketplace.training import engine  # noqa: PLC0415  (the one door to torch)

    work, round_ = selectors.audit_work(audit), audit.contribution.round
    shown = described(work.order, work.upload, work.params, work.steps)
    if shown != attested(document, round_, audit.node_id) or sha256_hex(work.evidence) != audit.evidence:
        return False
    before = work.before
    if before is not None and before.params is not None:  # the node may have begun from what it had made before
        if model_of(before.order, before.params) != attested_model(round_.job_id, before.order.round):
            return False
        before = replace(before, bound=is_bound(before, round_, audit.node_id))
    return engine.replay_audit(replace(work, before=before, honest_errors={})).proven


def described(order: WorkOrder, upload: bytes, params: bytes, steps: int) -> dict[str, Any]:
    """All of a contribution that a replay's outcome depends on, but for the node's own evidence."""
    return {
        **model_of(order, params), "artifact": sha256_hex(upload), "units": steps * order.spec.inner.batch_size,
        "shard": order.shard, "seed": order.seed, "steps": order.steps, "encoding": order.encoding.model_dump(mode="json"),
    }  # fmt: skip


def model_of(order: WorkOrder, params: bytes) -> dict[str, Any]:
    """What of a contribution before decides a guess, beside the upload, which the lead itself names by its hash. The upload need
    not be attested: one that was refused at its check is in no evidence, and its node may have begun from it all the same."""
    return {"spec": order.spec.sha256(), "base": order.base, "checkpoint": sha256_hex(params)}


def attested_model(job_id: int, number: int) -> dict[str, Any] | None:
    """The same, as the evidence of round `number` says it; None where the chain does not name the one that is shown."""
    round_ = Round.objects.select_related("job").filter(job=job_id, number=number).first()
    document = evidence_of(round_) if round_ is not None else None
    return {name: document[name] for name in MODEL} if document is not None else None


def is_bound(before: Earlier, round_: Round, node_id: int) -> bool:
    """Whether the node's receipt for the round just before was paid: what it names is all that a lead can be made of."""
    last = Round.objects.select_related("job").filter(job=round_.job_id, number=round_.number - 1).first()
    document = evidence_of(last) if last is not None else None
    entries = document["contributions"] if document is not None else []
    accepted = {entry["node"]: entry["artifact"] for entry in entries if not entry["refused"]}
    return accepted.get(node_id) == sha256_hex(before.upload)


def attested(document: dict[str, Any], round_: Round, node_id: int) -> dict[str, Any] | None:
    """The same, as the round's evidence says it, which a quorum has signed and the chain names; late work began at the model of
    an earlier round, whose evidence says which."""
    entry = next((one for one in document["contributions"] if one["node"] == node_id), None)
    if entry is None:
        return None
    late = entry["origin"] is not None
    began = attested_model(round_.job_id, entry["origin"]) if late else {name: document[name] for name in MODEL}
    names = ("artifact", "units", "shard", "seed", "steps", "encoding")
    return None if began is None else {**began, **{name: entry[name] for name in names}}


def evidence_of(round_: Round) -> dict[str, Any] | None:
    """Of an earlier round, if it is what the chain names; the coordinator's own word is none."""
    if not round_.evidence or settled(round_) != round_.evidence:
        return None
    return dict(json.loads(blob(round_.evidence)))
