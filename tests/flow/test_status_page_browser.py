"""The status page in a real browser: what a person sees, and that the buttons do what they say."""

import itertools
import json

import pytest

from agent.cvat.annotations_api import get_annotations
from tests.support.browser import browser, chromium
from tests.support.service import PASSWORD, running, written
from tests.unit.test_pool import Loader

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="needs Chromium, as of `apt-get install chromium`"),
    pytest.mark.usefixtures("passwords"),
]

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def window(tmp_path):
    with browser(tmp_path / "profile") as opened:
        yield opened


DRAWN_ANEW = """async () => {
  const first = document.querySelector('#models h2');
  while (document.querySelector('#models h2') === first) await new Promise(requestAnimationFrame);
}"""
"""Until the script has put its own parts in the place of those that came with the page."""


def test_a_person_sees_a_request_and_cancels_it(service, window):
    service.page.until(lambda now: now["ready"])
    window.do(lambda page: page.goto(service.url))
    assert "Nothing is being worked on." in window.do(lambda page: page.locator("#running").inner_text())
    service.door.work("task 12")
    window.do(lambda page: page.get_by_role("progressbar", name="progress of task 12").wait_for())
    row = window.do(lambda page: page.locator("#running tbody tr").inner_text())
    assert "3 of 10" in row
    assert "queue annotate_task" in row
    window.do(lambda page: page.get_by_role("button", name="Cancel task 12").click())
    window.do(lambda page: page.locator("#finished", has_text="cancelled").wait_for())
    assert "task 12" in window.do(lambda page: page.locator("#finished").inner_text())
    assert [record.outcome for record in service.shared.activity.finished()] == ["cancelled"]
    assert window.do(lambda page: page.url) == f"{service.url}/"
    assert window.problems == []


def test_a_person_takes_a_run_back(annotated, window):
    service, run, session, job = annotated
    assert len(get_annotations(session, job)["shapes"]) == 2
    window.do(lambda page: page.goto(service.url))
    window.do(lambda page: page.get_by_role("link", name=f"Undo… run {run}").click())
    window.do(lambda page: page.get_by_text("This removes from the server what the run created").wait_for())
    assert len(get_annotations(session, job)["shapes"]) == 2, "it was only asked"
    window.do(lambda page: page.get_by_role("button", name=f"Undo run {run}").click())
    window.do(lambda page: page.get_by_text(f"run {run}: 2 annotations removed").wait_for())
    assert get_annotations(session, job)["shapes"] == []
    window.do(lambda page: page.get_by_role("link", name="Back to the status page").click())
    window.do(lambda page: page.locator("#runs", has_text="undone").wait_for())
    assert window.problems == []


def test_it_works_by_keyboard_and_keeps_the_focus(service, window):
    service.door.work("task 12")
    window.do(lambda page: page.goto(service.url))
    window.do(lambda page: page.keyboard.press("Tab"))
    button = window.do(lambda page: page.evaluate("document.activeElement.textContent"))
    assert button == "Cancel task 12"
    outline = window.do(lambda page: page.evaluate("getComputedStyle(document.activeElement).outlineWidth"))
    assert outline == "3px", "one sees where one is"
    # The part is drawn anew when another request comes, and the button is a new one.
    service.door.work("task 13")
    window.do(lambda page: page.locator("#running", has_text="task 13").wait_for())
    assert window.do(lambda page: page.evaluate("document.activeElement.textContent")) == "Cancel task 12"
    window.do(lambda page: page.keyboard.press("Enter"))
    window.do(lambda page: page.locator("#finished", has_text="task 12").wait_for())
    assert [record["what"] for record in service.page.status()["running"]] == ["task 13"]


def test_without_scripts_it_does_the_same(service, tmp_path):
    service.door.work("task 12")
    with browser(tmp_path / "profile", java_script_enabled=False) as window:
        window.do(lambda page: page.goto(service.url))
        window.do(lambda page: page.get_by_role("button", name="Cancel task 12").click())
        service.page.until(lambda now: not now["running"])
        window.do(lambda page: page.goto(service.url))
        assert "cancelled" in window.do(lambda page: page.locator("#finished").inner_text())


def test_no_text_runs_as_a_script(tmp_path, window):
    more = f'[[models]]\nid = "evil"\nmodel = "x:y"\nname = "{EVIL}<img src=x onerror=alert(2)>"'
    with running(written(tmp_path, more=more), load=Loader()) as service:
        service.door.work(EVIL)
        window.do(lambda page: page.on("dialog", lambda dialog: window.problems.append("a script ran")))
        window.do(lambda page: page.goto(service.url))
        window.do(lambda page: page.evaluate(DRAWN_ANEW))
        assert EVIL in window.do(lambda page: page.locator("#models").inner_text())
        assert EVIL in window.do(lambda page: page.locator("#running").inner_text())
        assert window.do(lambda page: page.locator("img").count()) == 0
        service.door.end.set()
        assert window.problems == []


def test_a_service_that_is_gone_is_told(tmp_path, window):
    with running(written(tmp_path), load=Loader()) as service:
        window.do(lambda page: page.goto(service.url))
        assert window.do(lambda page: page.locator("#notice").is_visible()) is False
    window.do(lambda page: page.get_by_role("status").filter(has_text="No news since").wait_for())


def test_the_password_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("STATUS_WORD", PASSWORD)
    with running(written(tmp_path, service='secret_env = "STATUS_WORD"'), load=Loader()) as service:
        service.door.work("task 12")
        credentials = {"username": "anybody", "password": PASSWORD}
        with browser(tmp_path / "profile", http_credentials=credentials) as window:
            window.do(lambda page: page.goto(service.url))
            window.do(lambda page: page.get_by_role("button", name="Cancel task 12").click())
            window.do(lambda page: page.locator("#finished", has_text="task 12").wait_for())
        service.door.end.set()


def luminance(colour):
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """WCAG 2's ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


COLOURS = """() => [...document.querySelectorAll(
  'h1, h2, th, td, p, dt, dd, a, button, small, .good, .bad')].map(one => {
  let ground = one;
  while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  return [one.outerHTML.slice(0, 60), getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_can_read_it_by_day_and_by_night(service, tmp_path, scheme):
    service.door.work()
    service.door.state = type(service.door.state)(False, "is not well")
    with browser(tmp_path / "profile", color_scheme=scheme) as window:
        window.do(lambda page: page.goto(service.url))
        found = window.do(lambda page: page.evaluate(COLOURS))
    grounds = {ground for _, _, ground in found}
    assert len(found) > 30
    assert (luminance(next(iter(grounds))) > 0.5) == (scheme == "light")
    faint = [(what, text, ground) for what, text, ground in found if contrast(text, ground) < 4.5]
    assert faint == []


def test_one_can_read_it_on_a_phone(annotated, tmp_path):
    service, run, _, _ = annotated
    service.door.work("task 12 with a name that is longer than a phone is wide, as some are: " + "x" * 60)
    with browser(tmp_path / "profile", viewport={"width": 360, "height": 740}) as window:
        for path in ("", f"/runs/{run}"):
            window.do(lambda page, path=path: page.goto(service.url + path))
            width = window.do(lambda page: page.evaluate("document.documentElement.scrollWidth"))
            assert width <= 360, "nothing sticks out at the side"
        window.do(lambda page: page.goto(service.url))
        tree = window.do(lambda page: page.locator("#running").aria_snapshot())
        assert "rowheader" in tree, "a card is still a row of a table to those who listen to it"
        height = window.do(lambda page: page.locator("#running button").bounding_box()["height"])
        assert height >= 44, "a thumb can press it"


def test_every_part_has_a_name_for_those_who_listen(annotated, window):
    service, _, _, _ = annotated
    service.door.work("task 12")
    window.do(lambda page: page.goto(service.url))
    names = ["Service", "Running", "Models", "Doors", "Runs", "Errors", "Finished"]
    for name in names:
        assert window.do(lambda page, name=name: page.get_by_role("region", name=name, exact=True).count()) == 1
    tables = window.do(
        lambda page: page.get_by_role("table").evaluate_all("all => all.map(one => one.caption.innerText)")
    )
    assert len(tables) == len(set(tables)) >= 4
    levels = window.do(lambda page: page.locator("h1, h2, h3").evaluate_all("all => all.map(one => one.tagName)"))
    assert all(int(after[1]) - int(before[1]) <= 1 for before, after in itertools.pairwise(levels))
    assert json.dumps(levels).count("H1") == 1
