"""Which frames are chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadRequest, ConfigError
from agent.selection import parse_selection

FRAMES = range(20, 60)
OCCUPIED = {21, 30, 40}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", list(FRAMES)),
        ("empty", [frame for frame in FRAMES if frame not in OCCUPIED]),
        ("20-22,59", [20, 21, 22, 59]),
        ("59, 20 - 21, 21", [20, 21, 59]),
        ("0-21", [20, 21]),
        ("58-1000000", [58, 59]),
        ("every:10", [20, 30, 40, 50]),
        ("empty+every:10", [20, 50]),
        ("every:10+empty", [20, 50]),
        ("20-49+every:10+empty", [20]),
        ("empty+21", []),
        ("random:1000", list(FRAMES)),
    ],
)
def test_chosen(text, chosen):
    selection = parse_selection(text)
    assert selection.choose(FRAMES, OCCUPIED) == tuple(chosen)
    assert selection.needs_occupied == ("empty" in text)


@pytest.mark.parametrize(
    "text",
    ["", "al", "every", "every:0", "every:-1", "every:x", "random:", "1-", "-1", "1,,2", "1;2", "all,empty", "all+",
     "1.5", "٣", "9" * 5000, "random:" + "9" * 20, "every:10,empty"],
)  # fmt: skip
def test_nonsense_says_what_is_allowed(text):
    with pytest.raises(ConfigError, match=r"allowed: all, empty, 0-99,200, every:10, random:50"):
        parse_selection(text)


def test_a_range_that_runs_backwards():
    with pytest.raises(ConfigError, match="'30-20', which runs backwards, allowed: 20-30"):
        parse_selection("1,30-20")


@pytest.mark.parametrize("text", ["60", "0-19", "25,70-80", "empty+70"])
def test_numbers_beyond_the_task(text):
    with pytest.raises(BadRequest, match="allowed: 20 to 59"):
        parse_selection(text).choose(FRAMES, OCCUPIED)


def test_no_frames_at_all():
    assert parse_selection("5").choose([]) == ()


@given(st.integers(0, 99), st.integers(1, 40), st.permutations(list(FRAMES)))
def test_chance_is_the_same_for_the_same_seed_in_whatever_order_frames_come(seed, count, shuffled):
    selection = parse_selection(f"random:{count}", seed)
    chosen = selection.choose(FRAMES)
    assert len(chosen) == count
    assert list(chosen) == sorted(set(chosen))
    assert selection.choose(shuffled) == chosen


def test_seeds_differ():
    assert len({parse_selection("random:5", seed).choose(FRAMES) for seed in range(20)}) > 15


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("20-59", []),
        ("all", []),
        ("0-30,25,50-99", ["0-30", "50-99"]),
        ("every:10+50-60", ["50-60"]),
        ("10-70", ["10-70"]),
    ],
)
def test_ranges_over_the_ends_are_told(text, told):
    said = parse_selection(text).cut(FRAMES)
    assert said == [f"--frames {piece}: there are the frames 20 to 59 only" for piece in told]


def test_each_part_narrows_what_those_before_it_have_left():
    assert parse_selection("every:5+30-32").choose(FRAMES) == (30,)
    assert parse_selection("30-32+every:5").choose(FRAMES) == (30,)
