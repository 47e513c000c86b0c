"""Flower with FedAvgM: a server sends the weights to every client, each trains a round on its own data, the server takes a
momentum step on the mean. Server learning rate 0.7, momentum 0.9; clients keep their AdamW state between rounds."""

from __future__ import annotations

import argparse
import threading
import time

import flwr
import torch
from flwr.common import ndarrays_to_parameters
from flwr.server.strategy import FedAvgM
from task import Clock, Task, arguments, launch

MEET = "127.0.0.1:9092"
PATIENCE = 60.0


class Client(flwr.client.NumPyClient):
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.task, self.clock = Task(options.task, worker=options.worker), Clock(options)
        self.inner = self.task.optimizer()

    def fit(self, parameters: list, config: dict) -> tuple:
        load(self.task, parameters)
        for _ in range(self.options.inner):
            self.clock.step_begins()
            self.task.backward(self.task.model, self.inner, self.clock.steps)
            self.inner.step()
            self.clock.step_ended()
        return weights(self.task), self.options.inner, {}


def work(options: argparse.Namespace) -> None:
    client = Client(options)
    time.sleep(1)  # the server is starting
    flwr.client.start_client(server_address=MEET, client=client.to_client(), insecure=True)
    client.clock.report()


def serve(options: argparse.Namespace) -> None:
    """Run the server until its last round; what it has then is the result."""
    task = Task(options.task)
    rounds = task.steps // options.inner
    clock = Clock(options)

    def last(number: int, parameters: list, config: dict) -> None:
        if number == rounds:
            load(task, parameters)
            clock.report(task, name="server")

    strategy = FedAvgM(
        min_fit_clients=1, min_available_clients=options.workers, fraction_evaluate=0.0, server_learning_rate=0.7,
        server_momentum=0.9, initial_parameters=ndarrays_to_parameters(weights(task)), evaluate_fn=last,
    )  # fmt: skip
    config = flwr.server.ServerConfig(num_rounds=rounds, round_timeout=PATIENCE)
    flwr.server.start_server(server_address=MEET, config=config, strategy=strategy)


def weights(task: Task) -> list:
    return [parameter.detach().numpy().copy() for parameter in task.model.parameters()]


def load(task: Task, parameters: list) -> None:
    with torch.no_grad():
        for parameter, value in zip(task.model.parameters(), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value))


if __name__ == "__main__":
    given = arguments()
    if given.worker is None:
        workers = threading.Thread(target=launch, args=(given,), kwargs={"meet": MEET})
        workers.start()
        serve(given)
        workers.join()
    else:
        work(given)
