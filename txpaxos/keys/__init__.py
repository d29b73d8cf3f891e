"""Keys: certificates by which nodes and clients know each other, and TLS with them.

Keys are off unless a node or a client is given a folder of keys. Nothing here loads a library of cryptography before
that: the modules of this package do, and :func:`load_keys` imports them when it is called.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from txpaxos.errors import ConfigError

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys
    from txpaxos.keys.trust import Role


def load_keys(folder: str | Path, role: Role, name: str | None = None, now: datetime | None = None) -> Keys:
    """The keys in ``folder``, as :meth:`txpaxos.keys.folder.Keys.load` reads them, if TLS can use them.

    :raises ConfigError: if the folder cannot be used, or if the libraries that keys need are not installed.
    """
    try:
        from txpaxos.keys.folder import Keys
        from txpaxos.keys.tls import refuse_unusable
    except ImportError as error:
        raise ConfigError(f"keys need more packages ({error}): pip install 'txpaxos[keys]'") from None
    keys = Keys.load(folder, role, name=name, now=now)
    refuse_unusable(keys, now)
    return keys
