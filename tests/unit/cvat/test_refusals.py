"""Every form in which CVAT says no becomes one line for a person."""

import json

import pytest

from agent.cvat.refusals import LONGEST, refusal

JSON, HTML = "application/vnd.cvat+json", "text/html; charset=utf-8"
PAGE = "<!doctype html>\n<html><head><title>502 Bad\n Gateway</title></head><body><h1>nginx</h1></body></html>"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"detail": "Invalid token."}, "Invalid token."),
        ({"non_field_errors": ["Unable to log in with provided credentials."]}, "status 400: Unable to log in"),
        (["label_id `1` is invalid"], "label_id `1` is invalid"),
        ("Incorrect requested frame number: 3", "Incorrect requested frame number: 3"),
        ({"shapes": [{"points": ["invalid length"]}]}, "shapes: points: invalid length"),
        ({"shapes": [{}, {"frame": ["too low"]}]}, "shapes: frame: too low"),
    ],
)
def test_json(payload, said):
    line = refusal(400, JSON, json.dumps(payload).encode())
    assert line.startswith("status 400: ")
    assert said in line


def test_a_sentence_and_its_meaning_are_one_line():
    line = refusal(404, JSON, b'{"detail": "No Task matches the given query."}')
    assert line.startswith("status 404: No Task matches the given query; there is no such thing")


def test_a_page_gives_its_title_and_what_the_status_means():
    assert refusal(502, HTML, PAGE.encode()) == "status 502: 502 Bad Gateway; the proxy cannot reach CVAT"


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "token or password"), (403, "--job"), (404, "--organization"), (406, "CVAT server"), (413, "too large")],
)
def test_hints(status, hint):
    assert hint in refusal(status, JSON, b'{"detail":"no"}')


@pytest.mark.parametrize("content", [b"", b"{broken", b"\xff\xfe", b"<html><body>no title</body></html>"])
def test_nonsense_leaves_the_status(content):
    for kind in (JSON, HTML, ""):
        assert refusal(400, kind, content).startswith("status 400")


def test_one_line_of_bounded_length():
    line = refusal(400, JSON, json.dumps(["a\nb " * 1000]).encode())
    assert "\n" not in line
    assert len(line) < LONGEST + 50


def test_the_servers_own_paths_are_not_told():
    line = refusal(400, JSON, json.dumps("cannot identify image file '/home/django/data/data/5/raw/a.jpg'").encode())
    assert "django" not in line
    assert "cannot identify image file" in line
    assert "https://docs.cvat.ai/a/b" in refusal(400, JSON, b'"see https://docs.cvat.ai/a/b"')
