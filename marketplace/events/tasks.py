from marketplace.common.tasks import task
from marketplace.events import sweeping


@task()
def sweep() -> int:
    return sweeping.dispatch_stragglers() + sweeping.redrive_stalled()
