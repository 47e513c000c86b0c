"""The coordinator's Celery: queue `control` for short tasks, `compute` and `audit` for those that load torch, and one for
each attestor. Audits may be taken by workers of another machine."""

import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")

app = Celery("hypergpu")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "sweep events": {"task": "marketplace.events.tasks.sweep", "schedule": 2.0, "options": {"expires": 2}},
    "forget": {"task": "marketplace.training.tasks.forget", "schedule": 600.0, "options": {"expires": 600}},
    "tick rounds": {"task": "marketplace.training.tasks.tick", "schedule": 1.0, "options": {"expires": 1}},
}


@celeryd_after_setup.connect
def load_torch_early(instance: Any, **_: Any) -> None:
    """Workers that compute pay for loading torch and a data set when they start, not in the first job. Attestors' load it with
    their first batch: nobody waits for them before."""
    if "compute" in instance.app.amqp.queues:
        from marketplace.training import engine  # noqa: PLC0415  (the one door to torch)

        engine.warm_up()
