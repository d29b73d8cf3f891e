"""What may change between two releases of a service, found by comparing their schemas.

A release reads the log and the snapshots that an earlier one has written, and gets calls of clients of the earlier one.
So a change must leave all of these readable, and their meaning the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

Described = Mapping[str, Any]


@attrs.frozen
class Change:
    """A difference between two schemas.

    :ivar allowed: whether what the earlier release has written is still read, with the same meaning.
    :ivar text: one line that says what has changed, and where.
    """

    allowed: bool
    text: str


def changes_between(old: Described, new: Described) -> list[Change]:
    """The differences between the schemas of an earlier and a later release."""
    return list(_services(old["services"], new["services"]))


def _services(old: Described, new: Described) -> Iterator[Change]:
    for name in old:
        if name not in new:
            yield Change(False, f"service {name} is gone: the log and the snapshots have what is its")
            continue
        for kind, word in (("commands", "command"), ("queries", "query")):
            yield from _methods(name, word, old[name][kind], new[name][kind])
        yield from _state(name, old[name]["state"], new[name]["state"])
        yield from _classes(name, old[name]["classes"], new[name]["classes"])
    for name in new:
        if name not in old:
            yield Change(True, f"service {name} is new")


def _methods(service: str, word: str, old: Described, new: Described) -> Iterator[Change]:
    for name, before in old.items():
        where = f"{word} {service}.{name}"
        if name not in new:
            reason = "the log has calls of it" if word == "command" else "earlier clients call it"
            yield Change(False, f"{where} is gone: {reason}")
            continue
        after = new[name]
        yield from _in_order(where, before["parameters"], after["parameters"])
        if before["returns"] != after["returns"]:
            yield Change(False, f"{where} returns {after['returns']}, and returned {before['returns']}")
        for error, parameters in after["raises"].items():
            if error not in before["raises"]:
                yield Change(True, f"{where} raises {error}, which earlier clients get as CommandFailed or QueryFailed")
            else:
                yield from _in_order(f"{where}: error {error}", before["raises"][error], parameters)
        yield from (
            Change(True, f"{where} does not raise {one} any more")
            for one in before["raises"]
            if one not in after["raises"]
        )
        yield from _changes_of_answers(where, before, after)
    for name in new:
        if name not in old:
            yield Change(True, f"{word} {service}.{name} is new: have all nodes run this release before it is called")


def _changes_of_answers(where: str, before: Described, after: Described) -> Iterator[Change]:
    """Changes of when the answer to a query is looked at. Of one whose changes are kept, nodes do so as one."""
    was_kept, is_kept = before.get("changes_kept", False), after.get("changes_kept", False)
    had, has = before.get("topic"), after.get("topic")
    if was_kept and not is_kept:
        yield Change(False, f"{where} may not have its changes kept any more: the log has commands that say so")
    elif had != has:
        reason = ": snapshots have calls of it that are kept with that" if was_kept else ""
        yield Change(not was_kept, f"{where} has {_topic(has)}, and had {_topic(had)}{reason}")
    if is_kept and not was_kept:
        text = "may have its changes kept: have all nodes run this release before a caller asks for that"
        yield Change(True, f"{where} {text}")


def _topic(topic: str | None) -> str:
    return "no topic" if topic is None else f"the topic {topic!r:.60}"


def _state(service: str, old: Described, new: Described) -> Iterator[Change]:
    for name, before in old.items():
        where = f"state {service}.{name}"
        if name not in new:
            yield Change(False, f"{where} is gone: snapshots have it; keep it declared")
            continue
        after = new[name]
        yield from _type(where, before["type"], after["type"])
        if before["first"] != after["first"]:
            yield Change(False, f"{where} begins as {after['first']!r:.60}, and began as {before['first']!r:.60}")
    yield from (Change(True, f"state {service}.{name} is new") for name in new if name not in old)


def _in_order(where: str, old: list[Described], new: list[Described]) -> Iterator[Change]:
    """Changes of what goes by its place: parameters, and fields of classes that are arrays."""
    for number, before in enumerate(old):
        if number >= len(new):
            yield Change(False, f"{where}: {before['name']} is gone, which calls of before have")
            continue
        after = new[number]
        if after["name"] != before["name"]:
            yield Change(False, f"{where}: {after['name']} has the place of {before['name']}")
            return
        yield from _field(where, before, after)
    for after in new[len(old) :]:
        yield _added(where, after)


def _field(where: str, before: Described, after: Described) -> Iterator[Change]:
    name = before["name"]
    yield from _type(f"{where}: {name}", before["type"], after["type"])
    had, has = "default" in before, "default" in after
    if had and (not has or before["default"] != after["default"]):
        now = f"has the default {after['default']!r:.60}" if has else "has no default"
        yield Change(False, f"{where}: {name} {now}, and had {before['default']!r:.60}")
    elif has and not had:
        yield Change(True, f"{where}: {name} has a default now")


def _added(where: str, after: Described) -> Change:
    if "default" in after or after.get("optional"):
        return Change(True, f"{where}: {after['name']} is new, with a default")
    return Change(False, f"{where}: {after['name']} is new and has no default, which what was written before needs")


def _type(where: str, before: str, after: str) -> Iterator[Change]:
    """Changes of a type. One that takes more than before may stand at any place that is read."""
    if before == after:
        return
    is_wider = set(_parts(before)) <= set(_parts(after))
    words = "takes" if is_wider else "is"
    yield Change(is_wider, f"{where} {words} {after}, and was {before}")


def _parts(text: str) -> Iterator[str]:
    """The types of a union, as text."""
    depth, start = 0, 0
    for index, one in enumerate(text):
        depth += (one in "[(") - (one in "])")
        if one == "|" and not depth:
            yield text[start:index].strip()
            start = index + 1
    yield text[start:].strip()


def _classes(service: str, old: Described, new: Described) -> Iterator[Change]:
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            continue  # The types that it was in have changed, too.
        where = f"class {service}.{name}"
        if before.keys() != after.keys() or before.get("options") != after.get("options"):
            yield Change(False, f"{where} is another kind of class, or has other options")
        elif "values" in before:
            yield from _values(where, before["values"], after["values"])
        elif before["in_order"] or after["in_order"]:
            yield from _in_order(where, before["fields"], after["fields"])
        else:
            yield from _by_name(where, before["fields"], after["fields"])


def _values(where: str, old: Described, new: Described) -> Iterator[Change]:
    kept = list(new.values())
    yield from (
        Change(False, f"{where}: {name} = {value!r} is gone") for name, value in old.items() if value not in kept
    )
    known = list(old.values())
    yield from (Change(True, f"{where}: {name} is new") for name, value in new.items() if value not in known)


def _by_name(where: str, old: list[Described], new: list[Described]) -> Iterator[Change]:
    after = {field["name"]: field for field in new}
    for field in old:
        if field["name"] in after:
            yield from _field(where, field, after[field["name"]])
        else:
            yield Change(False, f"{where}: {field['name']} is gone, which what was written before has")
    before = {field["name"] for field in old}
    yield from (_added(where, field) for field in new if field["name"] not in before)
