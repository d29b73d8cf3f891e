"""The correct behaviour of services, one operation after another: histories are checked against it.

A model of your own is a subclass of :class:`Model` with :meth:`~Model.step`. Its other methods make the check faster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from typing import Any, Final

import attrs
from twisted.python.reflect import namedAny

from txpaxos.errors import ConfigError
from txpaxos.testing.linearizability.history import UNKNOWN


class Which(Enum):
    """The states that an :class:`Effect` does not name."""

    ANY = "any"
    SAME = "same"


ANY: Final = Which.ANY
SAME: Final = Which.SAME


@attrs.frozen
class Other:
    """Every state but one."""

    than: Hashable


@attrs.frozen
class Effect:
    """What an operation with that output proves about the state before it, and the state that it leaves.

    :ivar needs: where :meth:`Model.step` accepts it: in one state, in every state ``Other`` than one, or in ``ANY``. If
        the output is :data:`~txpaxos.testing.linearizability.history.UNKNOWN`: where it changes anything.
    :ivar leaves: the state after it, wherever it is accepted; or ``SAME`` if it never changes the state.
    """

    needs: Hashable
    leaves: Hashable


class Model:
    """A service. States are hashable values that never change. Inputs and outputs are frozen JSON, with tuples for
    lists (:func:`~txpaxos.testing.linearizability.history.freeze`)."""

    def partition(self, input: Any) -> Hashable:
        """The independent part of the service that ``input`` is about. Each part is checked alone, with a state of its
        own.

        :raises ValueError: if there is no such input.
        """
        return None

    def initial(self) -> Hashable:
        """The state of a part before its first operation."""
        return None

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        """Whether ``input`` may be answered with ``output`` in ``state``, and if so the state after it.

        The output :data:`~txpaxos.testing.linearizability.history.UNKNOWN` may be any.
        """
        raise NotImplementedError

    def effect(self, input: Any, output: Any) -> Effect | None:
        """What is known of an operation in any state; ``None`` if nothing is. It has to agree with ``step``.

        :raises ValueError: if there is no such output.
        """
        return None

    def may_lead(self, state: Any, target: Any, inputs: Mapping[Any, int]) -> bool:
        """Whether some of the ``inputs``, each at most as often as given, might lead from ``state`` to ``target``."""
        return True


class Register(Model):
    """One value, ``null`` at first.

    =====================  ================================================
    input                  output
    =====================  ================================================
    ``["read"]``           the value
    ``["write", value]``   anything
    ``["cas", old, new]``  whether the value was old, and so is new now
    =====================  ================================================
    """

    def __init__(self, initial: Hashable = None) -> None:
        self._initial = initial

    def initial(self) -> Hashable:
        """The value before the first write."""
        return self._initial

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        """See :class:`Model`."""
        match input:
            case ("read",):
                return output is UNKNOWN or output == state, state
            case ("write", value):
                return True, value
            case ("cas", old, new):
                swapped = state == old
                return output is UNKNOWN or output is swapped, new if swapped else state
        raise _no_input(input, "read, write, cas")

    def effect(self, input: Any, output: Any) -> Effect | None:
        """See :class:`Model`."""
        match input:
            case ("read",):
                return Effect(ANY if output is UNKNOWN else output, SAME)
            case ("write", value):
                return Effect(ANY, value)
            case ("cas", old, new):
                _boolean(input, output)
                return Effect(Other(old), SAME) if output is False else Effect(old, new)
        raise _no_input(input, "read, write, cas")


class KeyValue(Register):
    """A value for each key; ``null`` for a key that is not there. Each key is a part of its own.

    ==========================  =========================================================
    input                       output
    ==========================  =========================================================
    ``["get", key]``            the value
    ``["put", key, value]``     anything
    ``["delete", key]``         whether the key was there; or ``null``, not told
    ``["cas", key, old, new]``  whether the value was old, and so is new now
    ==========================  =========================================================
    """

    def __init__(self) -> None:
        super().__init__(None)

    def partition(self, input: Any) -> Hashable:
        """The key."""
        match input:
            case ("get" | "delete", key) | ("put", key, _) | ("cas", key, _, _):
                return key  # type: ignore[no-any-return]
        raise _no_input(input, "get, put, delete, cas")

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        """See :class:`Model`."""
        if input[0] == "delete" and output is not UNKNOWN and output is not None:
            return output is (state is not None), None
        return super().step(state, _of_one_key(input), output)

    def effect(self, input: Any, output: Any) -> Effect | None:
        """See :class:`Model`."""
        if input[0] == "delete" and output is not UNKNOWN and output is not None:
            _boolean(input, output)
            return Effect(Other(None), None) if output else Effect(None, SAME)
        return super().effect(_of_one_key(input), output)


def _of_one_key(input: Any) -> Any:
    match input:
        case ("get", _):
            return ("read",)
        case ("put", _, value):
            return "write", value
        case ("delete", _):
            return "write", None
        case ("cas", _, old, new):
            return "cas", old, new
    raise _no_input(input, "get, put, delete, cas")


class CounterModel(Model):
    """A whole number, 0 at first.

    ==================  ==============
    input               output
    ==================  ==============
    ``["add", number]``  the new total
    ``["read"]``        the total
    ==================  ==============
    """

    def initial(self) -> Hashable:
        """Zero."""
        return 0

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Hashable]:
        """See :class:`Model`."""
        total = state + _added(input)
        return output is UNKNOWN or output == total, total

    def effect(self, input: Any, output: Any) -> Effect | None:
        """See :class:`Model`."""
        added = _added(input)
        if output is UNKNOWN:
            return None if added else Effect(ANY, SAME)
        if not isinstance(output, int):
            raise ValueError(f"the output of {input!r} is a whole number, not {output!r}")
        return Effect(output - added, output if added else SAME)

    def may_lead(self, state: Any, target: Any, inputs: Mapping[Any, int]) -> bool:
        """See :class:`Model`."""
        added = [_added(input) * count for input, count in inputs.items()]
        lowest, highest = sum(min(0, each) for each in added), sum(max(0, each) for each in added)
        return lowest <= int(target) - int(state) <= highest


def _added(input: Any) -> int:
    match input:
        case ("read",):
            return 0
        case ("add", int() as number):
            return number
    raise _no_input(input, "add, read")


def _boolean(input: Any, output: Any) -> None:
    if output is not UNKNOWN and not isinstance(output, bool):
        raise ValueError(f"the output of {input!r} is true or false, not {output!r}")


def _no_input(input: Any, known: str) -> ValueError:
    return ValueError(f"{input!r} is no input of this model, which knows {known}")


MODELS: dict[str, Callable[[], Model]] = {"register": Register, "key-value": KeyValue, "counter": CounterModel}
"""The shipped models, by name."""


def model_named(name: str) -> Model:
    """The model of that name: one of :data:`MODELS`, or the dotted name of a class of your own.

    :raises ConfigError: if there is none.
    """
    make: Any = MODELS.get(name)
    if make is None and "." in name:
        try:
            make = namedAny(name)
        except Exception as error:  # whatever the import of a stranger's module raises
            raise ConfigError(f"cannot import the model {name}: {error}") from error
    if make is None:
        known = ", ".join(MODELS)
        raise ConfigError(f"no model is called {name!r}: use {known}, or the dotted name of a class of your own")
    model = make() if callable(make) else make
    if not isinstance(model, Model):
        raise ConfigError(f"{name} is no subclass of txpaxos.testing.linearizability.models.Model")
    return model
