"""Space-time diagrams as text, as pictures, and for ShiViz."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from txpaxos.drawing import SpaceTime, Step, as_shiviz, as_svg, as_text
from txpaxos.drawing.shiviz import PARSER

SVG = "{http://www.w3.org/2000/svg}"

VOTE = SpaceTime(
    ("a", "b", "c"),
    (
        Step("a", "sends AcceptSlot to c", 0.5, "sent"),
        Step("b", "applies slot 6", 0.6, "applied"),
        Step("c", "receives AcceptSlot", 0.7, cause=0),
        Step("c", "saves Voted", 0.8, "saved", since=2),
        Step("a", "learns <that> & more", 0.9, "chosen", cause=3),
    ),
    "A vote",
)


def test_text() -> None:
    assert as_text(VOTE).splitlines() == [
        "A vote",
        "",
        "                 a        b        c",
        "   0.500000      o        |        |      a sends AcceptSlot to c",
        "   0.600000      |        =        |      b applies slot 6",
        "   0.700000      o----------------->      c receives AcceptSlot",
        "   0.800000      |        |        #      c saves Voted",
        "   0.900000      <-----------------o      a learns <that> & more",
    ]


def test_text_without_times() -> None:
    story = SpaceTime(("longer-names",), (Step("longer-names", "begins"),))
    assert as_text(story).splitlines() == [" longer-names", "      *         longer-names begins"]


def test_picture_is_sound_and_says_all() -> None:
    root = ElementTree.fromstring(as_svg(VOTE))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for step in VOTE.steps:
        assert f"{step.node} {step.text}" in texts
        assert f"{step.seconds:.6f}" in texts
    assert root.findtext(f"{SVG}title") == "A vote"
    assert root.get("role") == "img"


def test_names_with_markup_and_control_characters() -> None:
    """XML has no control characters, and UTF-8 no half of a character; a name of a folder may have both."""
    name = 'a<b>\x1b[31m\x00\udcff&"'
    diagram = SpaceTime((name,), (Step(name, "sends\nall\ufffe"),), name)
    root = ElementTree.fromstring(as_svg(diagram).encode())
    assert root.findtext(f"{SVG}title") == 'a<b>\ufffd[31m\ufffd\ufffd&"'
    assert 'a<b>\ufffd[31m\ufffd\ufffd&" sends all\ufffd' in [one.text for one in root.iter(f"{SVG}text")]
    lines = as_shiviz(diagram).encode().decode().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_arrows_go_from_cause_to_effect() -> None:
    root = ElementTree.fromstring(as_svg(VOTE))
    lines = {kind: [one for one in root.iter(f"{SVG}line") if one.get("class") == kind] for kind in ("message", "span")}
    down = [int(one.get("y2", 0)) - int(one.get("y1", 0)) for one in lines["message"]]
    right = [int(one.get("x2", 0)) - int(one.get("x1", 0)) for one in lines["message"]]
    assert all(one > 0 for one in down)
    assert right[0] == -right[1] > 0
    assert [one.get("x1") == one.get("x2") for one in lines["span"]] == [True]


def test_picture_needs_nothing_from_outside() -> None:
    drawn = as_svg(VOTE).replace("http://www.w3.org/2000/svg", "")
    assert "http" not in drawn
    assert "<script" not in drawn


def test_text_from_outside_is_no_markup() -> None:
    hostile = SpaceTime(('"><x',), (Step('"><x', "</text><script>alert(1)</script>"),), "<b>")
    root = ElementTree.fromstring(as_svg(hostile))
    assert not list(root.iter(f"{SVG}script"))


def test_shiviz_clocks_follow_the_arrows() -> None:
    events = list(re.finditer(PARSER.replace("(?<", "(?P<"), as_shiviz(VOTE)))
    assert [event["host"] for event in events] == [step.node for step in VOTE.steps]
    assert [event["event"] for event in events] == [step.text for step in VOTE.steps]
    assert [json.loads(event["clock"]) for event in events] == [
        {"a": 1},
        {"b": 1},
        {"a": 1, "c": 1},
        {"a": 1, "c": 2},
        {"a": 2, "c": 2},
    ]


def test_shiviz_needs_names_without_spaces_and_a_line_for_each_text() -> None:
    drawn = as_shiviz(SpaceTime(("one node",), (Step("one node", "two\nlines"), Step("one node", ""))))
    assert drawn == 'one_node {"one_node": 1}\ntwo lines\none_node {"one_node": 2}\nstep\n'


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((Step("x", "is where?"),), "step 0 is at x"),
        ((Step("a", "comes from itself", cause=0),), "caused by step 0"),
        ((Step("a", "comes from later", cause=1), Step("a", "")), "caused by step 1"),
        ((Step("a", ""), Step("b", "began elsewhere", since=0)), "begins with step 0"),
    ],
)
def test_a_story_that_contradicts_itself_is_refused(steps: tuple[Step, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SpaceTime(("a", "b"), steps)
