"""The wire between an agent and its Celery worker: a private redis-server on a Unix socket in the agent's home.

It may lose everything at any time: the agent then starts it and the worker anew and sends the order again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

RUN_WORK_ORDER = "hypergpu.run_work_order"
GO_AHEAD = "hypergpu.go_ahead"
SHOW_EVIDENCE = "hypergpu.show_evidence"
QUEUE = "gpu"
READY = "worker:ready"
"""A list to which the worker pushes its facts once it takes orders."""
EXPIRE_SECONDS = 3600


def make_app(socket: Path) -> Celery:
    """The Celery app of both ends: JSON only, one task at a time, and an order is taken off the queue when it starts,
    because the agent, not the broker, decides whether it runs again."""
    app = Celery("hypergpu-agent", broker=f"redis+socket://{socket}")
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=False,
        task_publish_retry=False,
    )
    return app


def connect(socket: Path) -> Redis:
    """A client that fails at once: the answer to a broker that is gone is a new one, not patience."""
    return Redis(unix_socket_path=str(socket), decode_responses=True, socket_timeout=10, retry=Retry(NoBackoff(), 0))


class Updates:
    """What a run tells the agent, in order: {"step", "losses"} and {"note"} now and then; at last one of {"done"}, {"stopped"},
    {"missing"}, {"failed"}."""

    def __init__(self, redis: Redis, run_id: str) -> None:
        self.redis = redis
        self.updates, self.stop = f"run:{run_id}", f"stop:{run_id}"

    def post(self, update: Mapping[str, Any]) -> None:
        with self.redis.pipeline() as pipe:
            pipe.rpush(self.updates, json.dumps(update))
            pipe.expire(self.updates, EXPIRE_SECONDS)
            pipe.execute()

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next update, or None after `timeout` seconds."""
        popped = self.redis.blpop([self.updates], timeout=timeout)
        return None if popped is None else json.loads(popped[1])

    def ask_to_stop(self, *, beyond: int = -1) -> None:
        """At once, or rather than go `beyond` so many steps."""
        self.redis.set(self.stop, beyond, ex=EXPIRE_SECONDS)

    def is_asked_to_stop(self, *, before: int = 0) -> bool:
        """Whether the run shall stop before it has done `before` steps, those of its next segment among them."""
        beyond = self.redis.get(self.stop)
        return beyond is not None and before > int(beyond)
