"""``txpaxos play`` in a real browser: each lesson to its end, by mouse and by keyboard alone, and what axe finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from test.helpers.browser import chromium, page_at, violations, wait_until
from test.helpers.play_site import PlaySite, played
from txpaxos.play.course import LESSONS
from txpaxos.play.lessons import Lesson

NEXT = "[data-key=lesson-next]"
TABS_MAX = 80


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(browser: Any) -> Iterator[PlaySite]:
    with played() as running:
        yield running


@pytest.fixture
def page(browser: Any, site: PlaySite) -> Iterator[Any]:
    with page_at(browser, site.address, "[data-key=go]") as opened:
        yield opened


def begin(page: Any, what: str, count: str = "3") -> None:
    """Choose a lesson or a kind, and begin it."""
    run = page.evaluate("location.hash")
    page.select_option("#what", what)
    if page.is_enabled("#count"):
        page.select_option("#count", count)
    page.click("[data-key=begin]")
    wait_until(page, f"location.hash !== '{run}'")


def press_button(page: Any, selector: str) -> None:
    """Click, and wait until the page is drawn anew: each time with buttons of its own."""
    page.evaluate("document.querySelector('[data-key=go]').dataset.old = 'old'")
    page.click(selector)
    wait_until(page, "!document.querySelector('[data-old]')")


def tab_to(page: Any, condition: str) -> None:
    """Press Tab until the element that has the focus fulfils a condition."""
    for _ in range(TABS_MAX):
        if page.evaluate(f"(element => {condition})(document.activeElement)"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no Tab leads to {condition}")


def press_key(page: Any, key: str = "Enter") -> None:
    """Press a key on what has the focus, and wait until the page is drawn anew."""
    page.evaluate("document.querySelector('[data-key=go]').dataset.old = 'old'")
    page.keyboard.press(key)
    wait_until(page, "!document.querySelector('[data-old]')")


def check_shown(page: Any, lesson: Lesson, number: int) -> None:
    """The page shows that step of the lesson, and nothing in the run is other than it says."""
    assert page.inner_text("#lesson-title") == f"{lesson.title} ({number} of {len(lesson.steps)})"
    assert lesson.steps[number - 1].text in page.inner_text("#lesson-body")
    assert page.query_selector(".fails") is None
    assert page.inner_text("#trouble") == ""
    lines = page.inner_text("#lesson pre")
    assert all(line.strip() in lines for _, line in lesson.steps[number - 1].excerpt().lines)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_is_clicked_through(page: Any, lesson: Lesson) -> None:
    begin(page, f"lesson {lesson.name}")
    for number, step in enumerate(lesson.steps, 1):
        if number > 1:
            press_button(page, NEXT)
        if step.by_user:
            assert page.inner_text(NEXT) == "Do it for me"
            assert page.query_selector("#cluster .wanted, #side .wanted") is not None
            press_button(page, NEXT)
        check_shown(page, lesson, number)
        assert len(page.query_selector_all(".holds")) == len(step.expects)
    assert page.is_disabled(NEXT)
    assert "That was the last step." in page.inner_text("#lesson-body")
    if lesson is not LESSONS[-1]:
        press_button(page, "[data-key=lesson-after]")
        check_shown(page, LESSONS[LESSONS.index(lesson) + 1], 1)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_is_taken_by_keyboard_alone(page: Any, lesson: Lesson) -> None:
    """What the user is asked to do is done with the marked button, which Tab leads to."""
    run = page.evaluate("location.hash")
    tab_to(page, "element.id === 'what'")
    for _ in range(LESSONS.index(lesson)):
        page.keyboard.press("ArrowDown")
    assert page.input_value("#what") == f"lesson {lesson.name}"
    tab_to(page, "element.dataset.key === 'begin'")
    page.keyboard.press("Enter")
    wait_until(page, f"location.hash !== '{run}'")
    for number, step in enumerate(lesson.steps, 1):
        if number > 1:
            tab_to(page, "element.dataset.key === 'lesson-next'")
            press_key(page)
        if step.by_user:
            tab_to(page, "element.classList.contains('wanted')")
            press_key(page, "Space")
            assert page.evaluate("document.activeElement !== document.body"), "the focus is lost"
        check_shown(page, lesson, number)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, site: PlaySite, scheme: str) -> None:
    with page_at(browser, site.address, "[data-key=go]", color_scheme=scheme) as page:
        assert violations(page) == []
        press_button(page, NEXT)  # a marked form
        assert violations(page) == []
        for name in ("save-first", "lost-leader", "two-candidates"):
            begin(page, f"lesson {name}")
            for _ in range(4):
                press_button(page, NEXT)
            page.evaluate("document.getElementById('history').open = true")
            assert violations(page) == [], name
        begin(page, "kind practical")
        for selector in ('[aria-label="Start a ballot at a"]', '[aria-label^="Hold:"]', '[aria-label="Crash c"]'):
            press_button(page, selector)
        page.select_option("#cut-to", "b")
        press_button(page, "[data-key=cut]")
        assert violations(page) == []


def test_what_a_user_does_to_messages(page: Any) -> None:
    begin(page, "kind essential")
    page.fill("#value-p", "green")
    press_button(page, "[data-key=propose-p]")
    press_button(page, '[aria-label="Start a ballot at p"]')
    assert page.inner_text("#network-title") == "Under way: 3 messages"
    press_button(page, '[aria-label="Double: Prepare 1.p from p to a"]')
    assert page.inner_text("#network-title") == "Under way: 4 messages"
    press_button(page, '[aria-label="Drop: Prepare 1.p from p to c"]')
    press_button(page, '[aria-label="Hold: Prepare 1.p from p to b"]')
    assert "held back" in page.inner_text("#messages")
    page.click("svg g.pick circle")  # an arrow of the diagram is delivered by a click
    wait_until(page, "document.querySelector('[aria-label=\"Node a\"]').innerText.includes('1.p')")
    press_button(page, '[aria-label="Release: Prepare 1.p from p to b"]')
    for _ in range(20):
        if page.inner_text("#network-title") == "Under way: 0 messages":
            break
        press_button(page, "[data-key=go]")
    assert "green is chosen" in page.inner_text("#points")
    assert "green" in page.inner_text('[aria-label="Node l"]')
    page.click("[data-key=go]")
    wait_until(page, "document.getElementById('trouble').textContent !== ''")
    assert page.inner_text("#trouble") == "no message is under way, and no timer is set"
    assert violations(page) == []


def test_time_goes_back_and_on(page: Any) -> None:
    begin(page, "kind replica")
    for _ in range(4):
        press_button(page, "[data-key=go]")
    assert "4 of 4" in page.inner_text("#time-body")
    page.focus("#place")
    press_key(page, "ArrowLeft")
    assert "3 of 4" in page.inner_text("#time-body")
    press_button(page, "[data-key=one-back]")
    press_button(page, "[data-key=one-on]")
    assert "3 of 4" in page.inner_text("#time-body")
    press_button(page, '[aria-label="Let time pass to the next timer"]')
    assert "4 of 4" in page.inner_text("#time-body")
    page.click("[data-key=play]")
    wait_until(page, "document.getElementById('time-body').innerText.includes('6 of 6')")
    assert page.inner_text("[data-key=play]") == "Pause"
    page.click("[data-key=play]")
    assert page.inner_text("[data-key=play]") == "Play"


def test_a_lesson_is_left_and_found_again(page: Any) -> None:
    press_button(page, NEXT)
    page.fill("#value-q", "blue")
    press_button(page, "[data-key=propose-q]")
    assert "You have left the path of the lesson" in page.inner_text("#lesson-body")
    assert page.inner_text(NEXT) == "Back to the lesson"
    press_button(page, NEXT)
    assert "Your turn" in page.inner_text("#lesson-body")


def test_a_run_survives_a_reload_and_each_tab_has_its_own(browser: Any, site: PlaySite, page: Any) -> None:
    begin(page, "kind functional", "5")
    press_button(page, "[data-key=go]")
    page.reload()
    page.wait_for_selector("[data-key=go]")
    assert "1 of 1" in page.inner_text("#time-body")
    assert len(page.query_selector_all(".node")) == 5
    with page_at(browser, site.address, "[data-key=go]") as other:
        assert other.evaluate("location.hash") != page.evaluate("location.hash")
        assert "0 of 0" in other.inner_text("#time-body")
    assert "1 of 1" in page.inner_text("#time-body")


def test_a_screen_reader_is_told_what_happened(page: Any) -> None:
    begin(page, "lesson chosen-survives")
    for _ in range(5):
        press_button(page, NEXT)
    news = page.text_content("#news")
    assert news.startswith("One decree: a chosen value survives (5 of 7). The promises arrive at q.")
    assert news.endswith("c to q: Promise 1.q, accepted nothing")
    press_button(page, '[aria-label="Crash a"]')
    assert page.text_content("#news") == "a crashes"
    page.click("#history summary")
    rows = page.inner_text("#rows")
    assert "p to a: Accept 1.p red; a accepts red in 1.p" in rows
    assert "\np crashes\n" in rows


@pytest.mark.parametrize("width", [360, 640])
def test_on_a_small_screen_only_the_board_scrolls_sideways(browser: Any, site: PlaySite, width: int) -> None:
    with page_at(browser, site.address, "[data-key=go]", viewport={"width": width, "height": 800}) as page:
        begin(page, "lesson two-candidates")
        assert page.input_value("#count") == "5"
        assert page.evaluate("document.querySelector('.node').clientWidth") > 100
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert violations(page) == []


def test_the_page_says_when_the_command_has_ended(browser: Any) -> None:
    with played() as ending:
        context = browser.new_context()
        page = context.new_page()
        page.goto(ending.address)
        page.wait_for_selector(NEXT)
    page.click(NEXT)
    wait_until(page, "document.getElementById('trouble').textContent !== ''")
    assert page.inner_text("#trouble") == "txpaxos play does not answer any more."
    context.close()
