"""Drives ZooKeeper through kazoo: its locks and its locking queue, and values of nodes. Each worker is a thread.

python -m bench.recipes.kazoo_driver ADDRESSES WORKLOAD WORKERS SECONDS
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import monotonic

from kazoo.client import KazooClient

from bench.recipes.loop import Window, told, window

VALUE = b"v" * 100
SESSION_SECONDS = 60.0


def operation_of(client: KazooClient, workload: str, own: str) -> Callable[[], None]:
    """The operation of a worker."""
    match workload:
        case "lock" | "contended lock":
            lock = client.Lock(f"/lock-{own}" if workload == "lock" else "/one-lock", own)

            def take() -> None:
                lock.acquire()
                lock.release()

            return take
        case "queue":
            queue = client.LockingQueue("/queue")

            def pass_on() -> None:
                queue.put(VALUE)
                queue.get()
                queue.consume()

            return pass_on
        case "map put":
            client.ensure_path(f"/key-{own}")
            return lambda: client.set(f"/key-{own}", VALUE)
        case "map transaction":
            client.ensure_path(f"/guarded-{own}")
            version = client.get(f"/guarded-{own}")[1].version

            def put() -> None:
                nonlocal version
                transaction = client.transaction()
                transaction.check(f"/guarded-{own}", version)
                transaction.set_data(f"/guarded-{own}", VALUE)
                version = transaction.commit()[1].version

            return put
    raise SystemExit(f"kazoo has no {workload}")


def work(operation: Callable[[], None], counted: Window, taken: list[float]) -> None:
    """One worker, as :func:`bench.recipes.loop.work`."""
    while (begin := monotonic()) < counted.ends_at:
        operation()
        end = monotonic()
        if (begin, end) in counted:
            taken.append(end - begin)


def main(addresses: str, workload: str, workers: str, seconds: str) -> None:
    """Run a workload, and print its figures."""
    client = KazooClient(hosts=addresses, timeout=SESSION_SECONDS)
    client.start()
    operations = [operation_of(client, workload, f"{number}") for number in range(int(workers))]
    counted = window(1.0, float(seconds))
    taken: list[float] = []
    threads = [threading.Thread(target=work, args=(operation, counted, taken)) for operation in operations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.stop()
    print(told(taken, counted))


if __name__ == "__main__":
    main(*sys.argv[1:])
