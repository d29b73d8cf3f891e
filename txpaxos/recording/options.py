"""What a node records, and where."""

from __future__ import annotations

import os
from importlib import import_module

import attrs
from attrs.validators import ge

BYTES_MAX = 2**30
"""The most bytes that the recording of one node has on disk, unless told otherwise."""

BYTES_MAX_LEAST = 2**20
"""The least that may be asked for."""


@attrs.frozen
class RecordingOptions:
    """What is recorded, and where.

    :ivar directory: the folder. Each node has a folder of its own in it.
    :ivar bytes_max: the most bytes that the recording of one node has on disk; the oldest go.
    :ivar redact: whether values are replaced by their length and a digest.
    """

    directory: str
    bytes_max: int = attrs.field(default=BYTES_MAX, validator=ge(BYTES_MAX_LEAST))
    redact: bool = False

    @classmethod
    def of(cls, given: RecordingOptions | str | os.PathLike[str] | None) -> RecordingOptions | None:
        """The options, where a folder alone may be given, or nothing."""
        return cls(os.fspath(given)) if isinstance(given, str | os.PathLike) else given


def this_release() -> str:
    """The release of this program."""
    # The module of that name knows this one, so it is asked only when it is there.
    return str(import_module("txpaxos").__version__)
