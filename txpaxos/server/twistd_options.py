"""What can be wrong with twistd's own options: it would say so with a traceback, and as a daemon where no terminal is.

An unknown *name* with ``--uid`` or ``--gid`` is not among them: twistd looks it up before it loads any plugin.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Mapping
from typing import Any

from txpaxos.errors import ConfigError

LOG_FILE = "twistd.log"
"""Where a daemon logs unless it is told."""


def check_options(options: Mapping[str, Any], is_daemon: bool) -> None:
    """Look for what would keep twistd from starting, before anything is started.

    :param options: those of twistd, as the command line has them.
    :raises ConfigError: one line.
    """
    _check_user(options)
    if options.get("chroot") is not None:
        _check_folder("--chroot", options["chroot"])
        return  # What the other paths mean is known in there only.
    folder = options.get("rundir") or "."
    _check_folder("--rundir", folder)
    if options.get("pidfile"):
        _check_file("--pidfile", options["pidfile"])
        if os.path.exists(options["pidfile"]) and not os.access(options["pidfile"], os.R_OK):
            raise ConfigError(f"--pidfile {options['pidfile']} cannot be read: is it another user's?")
    if not options.get("logger") and not options.get("syslog"):
        log = options.get("logfile") or (LOG_FILE if is_daemon else "-")
        if log != "-":
            _check_file("--logfile", log)
    if options.get("profile"):
        _check_file("--profile", os.path.join(folder, options["profile"]))


def _check_folder(option: str, path: str) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        handle = -1  # It need not be readable.
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be used: {error.strerror}") from None
    if handle >= 0:
        os.close(handle)
    if not os.access(path, os.X_OK):
        raise ConfigError(f"{option} {path} cannot be used: {os.strerror(errno.EACCES)}")


def _check_file(option: str, path: str) -> None:
    """See that the file at ``path`` can be written, or made. If it is not there it is not there afterwards."""
    existed = os.path.lexists(path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o600))
        if not existed:
            os.unlink(path)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error.strerror}") from None


def _check_user(options: Mapping[str, Any]) -> None:
    uid, gid = options.get("uid"), options.get("gid")
    if uid is not None and not _is_known(pwd.getpwuid, uid):
        raise ConfigError(f"--uid {uid}: there is no such user")
    if gid is not None and not _is_known(grp.getgrgid, gid):
        raise ConfigError(f"--gid {gid}: there is no such group")
    own_uid, own_gid = os.geteuid(), os.getegid()
    if own_uid != 0 and (uid not in (None, own_uid) or gid not in (None, own_gid)):
        raise ConfigError("--uid and --gid: only root may run a process as another user")


def _is_known(look_up: Any, number: int) -> bool:
    try:
        look_up(number)
    except (KeyError, OverflowError):
        return False
    return True
