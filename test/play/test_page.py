"""The files of the page: contrast of all colours, in both schemes, and nothing that comes from elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

PAGE = files("txpaxos.play") / "page"
CSS = (PAGE / "play.css").read_text()
CONTRAST_MIN = 4.5
"""What the guidelines for accessible pages (WCAG 2, level AA) want for text of this size."""
LINES_CONTRAST_MIN = 3.0
"""What they want for lines and signs that have a meaning."""

TEXTS = ("text", "quiet", "act", "vote", "learn", "lead", "no", "wanted")
GROUNDS = ("ground", "raised")


def scheme(name: str) -> dict[str, str]:
    """The colours of the light or the dark scheme."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)
    )
    assert light.keys() == dark.keys()
    return light if name == "light" else dark


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_all_text_can_be_read(name: str) -> None:
    """axe looks at no text of a picture; so the colours are compared here."""
    colours = scheme(name)
    pairs = [(text, ground) for text in TEXTS for ground in GROUNDS]
    pairs += [("text", "button"), ("quiet", "button"), ("text", "wanted-ground")]
    found = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in found.items() if ratio < CONTRAST_MIN} == {}
    for ground in GROUNDS:
        assert contrast(colours["line"], colours[ground]) >= LINES_CONTRAST_MIN


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#ffffff", "#000000") == 21
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize("name", ["index.html", "play.css", "play.js"])
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = (PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w+\.|@import|eval\(|innerHTML|\son\w+=|\sstyle=", text)
