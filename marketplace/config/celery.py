"""The coordinator's Celery: queue `control` for short tasks, `compute` for those that load torch, `attest` for scores."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")

app = Celery("hypergpu")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "sweep events": {"task": "marketplace.events.tasks.sweep", "schedule": 2.0, "options": {"expires": 2}},
    "tick rounds": {"task": "marketplace.training.tasks.tick", "schedule": 1.0, "options": {"expires": 1}},
}
