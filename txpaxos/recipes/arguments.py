"""Checks of what the objects of the recipes are made with.

A wrong name or number is a mistake in the calling program. So it is raised where the object is made, in one line, and
not by each of its methods later.
"""

from __future__ import annotations

from txpaxos.recipes.replicated.bounds import NAME_CHARACTERS_MAX, SMALL_BYTES_MAX


def check_name(name: object, what: str = "name") -> str:
    """Check the name of something.

    :param what: the name of the argument.
    :raises TypeError: if it is none.
    """
    return _text(name, what, 1, NAME_CHARACTERS_MAX)


def check_text(text: object, what: str = "value") -> str:
    """Check what a contender or a member says of itself.

    :param what: the name of the argument.
    :raises TypeError: if it is no text, or too long.
    """
    return _text(text, what, 0, SMALL_BYTES_MAX)


def check_whole_number(number: object, what: str, at_most: int, at_least: int = 1) -> int:
    """Check a number of something.

    :param what: the name of the argument.
    :raises TypeError: if it is none, or too low or too high.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not at_least <= number <= at_most:
        raise TypeError(f"{what} must be an int from {at_least} to {at_most}, not {number!r:.100}")
    return number


def _text(text: object, what: str, at_least: int, at_most: int) -> str:
    if not isinstance(text, str) or not at_least <= len(text) <= at_most:
        raise TypeError(f"{what} must be a str of {at_least} to {at_most} characters, not {text!r:.100}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TypeError(f"{what} must have UTF-8: {text!a:.100} has none") from None
    return text
