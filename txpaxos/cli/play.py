"""``txpaxos play``: Paxos in a browser, run by the shipped core."""

from __future__ import annotations

import threading
import webbrowser
from typing import Any

import click
from twisted.internet.error import CannotListenError

from txpaxos.cli.printing import check_output
from txpaxos.cli.running import CommandError, run
from txpaxos.play.site import serve


@click.command("play")
@click.option(
    "--port", default=0, metavar="PORT", type=click.IntRange(0, 65535), help="The port. [default: any that is free]"
)
@click.option("--no-browser", is_flag=True, help="Only print the address of the page.")
def command(port: int, no_browser: bool) -> None:
    """See Paxos run in a browser: deliver, hold back and lose messages, crash nodes, rewind.

    Prints the address of a page on this machine, and opens it. All that the page shows is computed by the nodes of
    txpaxos themselves, in this command. Lessons lead from one decree to the log. Ends with Ctrl-C.
    """
    check_output()

    def tell(address: str) -> None:
        click.echo(f"Paxos is at {address} (Ctrl-C ends it)")
        if not no_browser:  # Some browsers take the terminal until they end.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    async def work(reactor: Any) -> None:
        try:
            await serve(reactor, port, tell)
        except CannotListenError as error:
            raise CommandError(f"cannot listen at 127.0.0.1:{port}: {error.socketError}") from None

    run(work)
