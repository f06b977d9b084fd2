"""Server-sent events: the standard's own examples, and what servers and proxies do to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cvat.events import LONGEST_LINE, Event, ReconnectAfter, read_events
from agent.errors import ServerUnavailable


def events(*pieces):
    return list(read_events([piece.encode() if isinstance(piece, str) else piece for piece in pieces]))


NEW = Event("newrequest", '{"request_category": "batch"}')
RECORDED = 'retry: 1000\n\nevent: newrequest\ndata: {"request_category": "batch"}\n\n: keep-alive\n\n'


def test_what_cvat_sends():
    assert events(RECORDED) == [ReconnectAfter(1.0), NEW]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", "YHOO\n+2\n10")]),
        (": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
         [Event("message", "first event"), Event("message", "second event")]),
        ("data\n\ndata\ndata\n\ndata:", [Event("message", ""), Event("message", "\n")]),
        ("data:test\n\ndata: test\n\n", [Event("message", "test")] * 2),
        ("event: newrequest\n\ndata: x\n\n", [Event("message", "x")]),
        ("\n\n\n: only comments\n\n:\n\n", []),
        ("retry: soon\nretry: 1.5\nretry: ²\nretry: " + "9" * 400 + "\nretry:25\n", [ReconnectAfter(0.025)]),
        ("\ufeffdata: after a mark\n\n", [Event("message", "after a mark")]),
        ("data: \ufeff\n\n", [Event("message", "\ufeff")]),
        ("nonsense\nfoo: bar\ndata: x\n\n", [Event("message", "x")]),
        ("data: cut off", []),
        ("data: cut off\n", []),
    ],
)  # fmt: skip
def test_the_standard(text, expected):
    assert events(text) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_ends_of_lines(end):
    assert events(RECORDED.replace("\n", end)) == [ReconnectAfter(1.0), NEW]


@given(st.data())
def test_wherever_it_is_cut(data):
    end = data.draw(st.sampled_from(["\n", "\r", "\r\n"]))
    content = ("\ufeff" + RECORDED.replace("batch", "bä€😀ch").replace("\n", end)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=12)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert events(*pieces) == [ReconnectAfter(1.0), Event("newrequest", NEW.data.replace("batch", "bä€😀ch"))]


def test_bytes_that_are_no_text():
    assert events(b"data: \xff\xfe\n\n") == [Event("message", "\ufffd\ufffd")]


def test_an_event_comes_as_soon_as_it_is_whole():
    def pieces():
        yield b"data: one\n\n"
        raise AssertionError("the event was there already")

    assert next(read_events(pieces())) == Event("message", "one")


def test_a_line_that_never_ends():
    with pytest.raises(ServerUnavailable):
        events("x" * LONGEST_LINE, "x")
