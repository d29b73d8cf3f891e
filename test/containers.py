"""Three nodes in containers: the image is built, the leader is killed, the others go on, and it comes back.

.. code-block:: console

    $ python -m test.containers
    $ python -m test.containers --base localhost/of-my-own

It needs podman or docker, and an image with Python: one of a registry, or one that is here already.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from test.release import ROOT
from txpaxos.cluster import Address, Cluster, Member

NODES = ("a", "b", "c")
SECONDS_MAX = 120.0
CONTAINERFILE = ROOT / "deploy" / "Containerfile"


class ContainerError(Exception):
    """What does not work, in one line and what was printed."""


def engine() -> str | None:
    """podman, or docker, if one of them is here and works."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def default_base() -> str:
    """The image that the Containerfile builds on unless it is told."""
    (base,) = re.findall("^ARG BASE=(.+)$", CONTAINERFILE.read_text(), re.MULTILINE)
    return str(base)


class Containers:
    """The containers of one run. Their names begin with one that no other run has.

    :param engine: ``podman`` or ``docker``.
    """

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.name = f"txpaxos-test-{os.getpid()}"
        self.hosts: dict[str, str] = {}

    def call(self, *arguments: str, check: bool = True) -> str:
        """Call the engine. Returns what it prints.

        :raises ContainerError: if it fails, unless ``check`` is false."""
        done = subprocess.run(
            [self.engine, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            line = f"{self.engine} {' '.join(arguments)} ended with {done.returncode}"
            raise ContainerError(f"{line}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def has_image(self, image: str) -> bool:
        """Whether an image is here, or can be fetched."""
        with contextlib.suppress(ContainerError):
            self.call("image", "inspect", image)
            return True
        with contextlib.suppress(ContainerError):
            self.call("pull", "--quiet", image)
            return True
        return False

    def build(self, base: str) -> None:
        """Build the image."""
        options = ["--format", "docker"] if self.engine == "podman" else []
        options += ["--network", "host", "--build-arg", f"BASE={base}", "--tag", self.name]
        self.call("build", *options, "--file", str(CONTAINERFILE), str(ROOT))

    def start_all(self, folder: Path) -> None:
        """Start the nodes in a network of their own, each with a volume of its own, as compose.yaml does. Hosts have
        fixed addresses, since not every network of podman has a name server."""
        self.call("network", "create", self.name)
        (found,) = json.loads(self.call("network", "inspect", self.name))
        subnet = re.findall(r'"(?:subnet|Subnet)": "(\d+\.\d+\.\d+)\.', json.dumps(found))[0]
        self.hosts = {node: f"{subnet}.{10 + number}" for number, node in enumerate(NODES)}
        members = {node: Member(Address(node, 4001), Address(node, 5001)) for node in NODES}
        (folder / "cluster.toml").write_text(Cluster("counter", members).dumps())
        (folder / "cluster.toml").chmod(0o644)
        folder.chmod(0o755)
        for node in NODES:
            options = [f"--add-host={other}:{address}" for other, address in self.hosts.items()]
            options += ["--name", self.of(node), "--network", self.name, "--ip", self.hosts[node]]
            options += ["--volume", f"{folder}/cluster.toml:/etc/txpaxos/cluster.toml:ro"]
            options += ["--volume", f"{self.of(node)}:/var/lib/txpaxos"]
            command = ["--insecure", "--cluster", "/etc/txpaxos/cluster.toml", "--node", node]
            self.call("run", "--detach", *options, self.name, *command)

    def of(self, node: str) -> str:
        """The name of the container of a node."""
        return f"{self.name}-{node}"

    def txpaxos(self, node: str, *arguments: str, check: bool = True) -> str:
        """Run the ``txpaxos`` command in the container of a node."""
        return self.call("exec", self.of(node), "txpaxos", *arguments, check=check)

    def wait_until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait until ``condition`` is true. Returns the seconds that this took.

        :raises ContainerError: if it takes too long; with the logs of the nodes."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > SECONDS_MAX:
                logs = "\n".join(self.call("logs", self.of(node), check=False)[-2000:] for node in NODES)
                raise ContainerError(f"{what} did not happen within {SECONDS_MAX:g} s:\n{logs}")
        return time.monotonic() - began

    def is_level(self, node: str) -> bool:
        """Whether ``node`` sees all nodes answer and follow one leader."""
        return f"{len(NODES)} of {len(NODES)} nodes answer" in self.txpaxos(node, "status", check=False)

    def leader(self, node: str) -> str:
        """The leader, as ``node`` is told."""
        return str(json.loads(self.txpaxos(node, "status", "--json"))["leader"])

    def state(self, node: str) -> dict[str, object]:
        """What the engine knows of the container of a node."""
        found: dict[str, object] = json.loads(self.call("inspect", self.of(node)))[0]["State"]
        return found

    def remove(self) -> None:
        """Remove all that this run has made."""
        for node in NODES:
            self.call("rm", "--force", self.of(node), check=False)
            self.call("volume", "rm", "--force", self.of(node), check=False)
        self.call("network", "rm", self.name, check=False)
        self.call("rmi", "--force", self.name, check=False)


def steps(containers: Containers, base: str, folder: Path) -> Iterator[str]:
    """Do it all, and tell it line by line.

    :raises ContainerError: at the first thing that is not as it should be."""
    containers.build(base)
    yield f"built on {base}"
    containers.start_all(folder)
    seconds = containers.wait_until(lambda: containers.is_level("a"), "an election")
    yield f"{len(NODES)} nodes follow one leader {seconds:.1f} s after the last was started"
    expect(containers.call("exec", containers.of("a"), "id", "-un").strip(), "txpaxos")
    expect(containers.txpaxos("a", "submit", "+5").strip(), "5")
    if containers.engine == "podman":  # docker calls it by itself only.
        containers.call("healthcheck", "run", containers.of("a"))
        yield "the health check finds a well"
    leader = containers.leader("a")
    containers.call("kill", containers.of(leader))
    other = next(node for node in NODES if node != leader)
    expect(containers.txpaxos(other, "submit", "+5").strip(), "10")
    yield f"the leader {leader} was killed, and {containers.leader(other)} leads"
    containers.call("start", containers.of(leader))
    seconds = containers.wait_until(lambda: containers.is_level(leader), f"the return of {leader}")
    expect(containers.txpaxos(leader, "submit", "+5").strip(), "15")
    yield f"{leader} is back with its volume, {seconds:.1f} s after it was started again"
    began = time.monotonic()
    containers.call("stop", "--time", "15", containers.of(leader))
    status = containers.state(leader)["ExitCode"]
    if status not in (0, 143):
        raise ContainerError(f"{leader} ended with {status} when it was stopped")
    yield f"{leader} stopped in order within {time.monotonic() - began:.1f} s, with status {status}"


def expect(found: str, wanted: str) -> None:
    """Check an answer.

    :raises ContainerError: if it is another one."""
    if found != wanted:
        raise ContainerError(f"the answer is {found!r}, and should be {wanted!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m test.containers", description=__doc__)
    parser.add_argument("--base", default=default_base(), help="The image to build on.")
    base, found = parser.parse_args(arguments).base, engine()
    if found is None:
        print("neither podman nor docker works here", file=sys.stderr)
        return 2
    containers = Containers(found)
    if not containers.has_image(base):
        print(f"{base} is not here, and cannot be fetched", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="txpaxos-containers-") as folder:
            for line in steps(containers, base, Path(folder)):
                print(line, flush=True)
    except ContainerError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        containers.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
