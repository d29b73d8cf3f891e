"""``python -m txpaxos``: the ``txpaxos`` command, where it is not on the path."""

import signal


def main() -> None:
    """Run the command. Ctrl-C ends it without a word while it is being loaded."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from txpaxos.cli import main as command

    signal.signal(signal.SIGINT, before)
    command(prog_name="txpaxos")


if __name__ == "__main__":
    main()
