from datetime import datetime

import pytest

from agent.doors.watch.hours import is_quiet, pause_after


@pytest.mark.parametrize(
    ("hours", "time", "quiet"),
    [
        (("22:00", "06:00"), "22:00", True),
        (("22:00", "06:00"), "21:59", False),
        (("22:00", "06:00"), "00:00", True),
        (("22:00", "06:00"), "05:59", True),
        (("22:00", "06:00"), "06:00", False),
        (("08:00", "18:00"), "12:00", True),
        (("08:00", "18:00"), "07:59", False),
        (("08:00", "18:00"), "18:00", False),
        (None, "12:00", False),
    ],
)
def test_quiet_hours_reach_over_midnight(hours, time, quiet):
    assert is_quiet(hours, datetime.fromisoformat(f"2026-03-01T{time}:30+02:00")) is quiet


def test_pauses_double_up_to_six_hours():
    assert [pause_after(tries, 0.5) for tries in (0, 1, 2, 3, 4)] == [60, 60, 120, 240, 480]
    assert pause_after(1000, 0.5) == 6 * 3600
    assert pause_after(1, 0.0) == 45
    assert pause_after(1, 1.0) == 75
