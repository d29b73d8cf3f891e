"""``python -m txpaxos``: the ``txpaxos`` command, where it is not on the path."""

from txpaxos.cli import main

if __name__ == "__main__":
    main(prog_name="txpaxos")
