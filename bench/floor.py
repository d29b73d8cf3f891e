"""What one durable write over the network takes at least on this machine, in Python: its round trips, and its sync.

    python -m bench.floor FOLDER

Plain blocking sockets between two processes, and appends to a file that has its size already. Prints JSON.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import attrs
import click

MESSAGE_BYTES = 200
APPEND_BYTES = 256
ROUNDS = 1000
WARM_UP_ROUNDS = 200
HOST = "127.0.0.1"


@attrs.frozen
class Floor:
    """Medians, in seconds."""

    udp_round_trip_seconds: float
    tcp_round_trip_seconds: float
    append_and_sync_seconds: float

    @property
    def seconds(self) -> float:
        """All three, one after the other."""
        return self.udp_round_trip_seconds + self.tcp_round_trip_seconds + self.append_and_sync_seconds


def median_seconds(act: Callable[[], object]) -> float:
    """How long ``act`` takes."""
    seconds = []
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        began = time.perf_counter()
        act()
        if number >= WARM_UP_ROUNDS:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def echo_datagrams(address_to: Any) -> None:
    """Send back all that comes, in a process of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((HOST, 0))
        address_to.send(ear.getsockname())
        while True:
            data, sender = ear.recvfrom(65536)
            ear.sendto(data, sender)


def echo_stream(address_to: Any) -> None:
    """Send back all that comes on one connection, in a process of its own."""
    with socket.create_server((HOST, 0)) as ear:
        address_to.send(ear.getsockname())
        connection, _ = ear.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(65536):
            connection.sendall(data)


def round_trip_seconds(echo: Callable[[Any], None], kind: socket.SocketKind) -> float:
    """The median round trip to an echo."""
    processes = get_context("spawn")
    here, there = processes.Pipe()
    process = processes.Process(target=echo, args=(there,), daemon=True)
    process.start()
    message = bytes(MESSAGE_BYTES)
    try:
        with socket.socket(socket.AF_INET, kind) as mouth:
            mouth.connect(here.recv())
            if kind is socket.SOCK_STREAM:
                mouth.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def there_and_back() -> None:
                mouth.sendall(message)
                left = MESSAGE_BYTES
                while left:
                    left -= len(mouth.recv(left))

            return median_seconds(there_and_back)
    finally:
        process.kill()
        process.join()


def append_and_sync_seconds(folder: str) -> float:
    """The median append to a file of full size, with its fdatasync."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        handle, offset = file.fileno(), 0
        size = APPEND_BYTES * (WARM_UP_ROUNDS + ROUNDS)
        os.pwrite(handle, bytes(size), 0)
        os.fsync(handle)
        data = b"\xff" * APPEND_BYTES

        def append() -> None:
            nonlocal offset
            os.pwrite(handle, data, offset)
            os.fdatasync(handle)
            offset += APPEND_BYTES

        return median_seconds(append)


def measure(folder: str) -> Floor:
    """All three."""
    return Floor(
        round_trip_seconds(echo_datagrams, socket.SOCK_DGRAM),
        round_trip_seconds(echo_stream, socket.SOCK_STREAM),
        append_and_sync_seconds(folder),
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), default=".")
def main(folder: str) -> None:
    """See the top of this file."""
    click.echo(json.dumps(attrs.asdict(measure(folder))))


if __name__ == "__main__":
    main()
