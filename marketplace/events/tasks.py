from marketplace.common.tasks import each, task
from marketplace.events import sweeping


@task()
def sweep() -> None:
    each([sweeping.dispatch_stragglers, sweeping.redrive_stalled], lambda step: step())
