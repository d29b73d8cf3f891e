"""``python -m txpaxos``: the ``txpaxos`` command, where it is not on the path."""

import signal


def main() -> None:
    """Run the command. Ctrl-C ends it without a word while it is being loaded."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from txpaxos.cli import main as command

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command(prog_name="txpaxos")


if __name__ == "__main__":
    main()
