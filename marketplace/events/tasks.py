from celery import shared_task

from marketplace.events import sweeping


@shared_task
def sweep() -> int:
    return sweeping.dispatch_stragglers() + sweeping.redrive_stalled()
