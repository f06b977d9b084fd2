"""The table that a person reads after a run: short, whatever the size of the model's vocabulary."""

from agent.labels.match import NO_SUCH_LABEL
from agent.report import RunReport


def lines(**values):
    report = RunReport(total=3, done=3)
    for name, value in values.items():
        setattr(report, name, value)
    return list(report.lines())


def test_many_dropped_labels_are_one_line():
    why = {f"thing {number:02}": NO_SUCH_LABEL for number in range(75)}
    found = lines(dropped_why=why)
    assert found[-1] == (
        "dropped     75 labels of the model without a place in the task:"
        " thing 00, thing 01, thing 02, thing 03, thing 04, … and 70 more (see --report)"
    )


def test_those_that_were_seen_come_first():
    report = RunReport(dropped_why={"ant": NO_SUCH_LABEL, "eye": NO_SUCH_LABEL})
    report.dropped["eye"] = 6
    assert (
        list(report.lines())[-1] == "dropped     2 labels of the model without a place in the task: eye (6 seen), ant"
    )


def test_a_place_that_does_not_fit_is_told_with_its_reason():
    misfit = "the model gives 'bus' as rectangle, the task takes 'bus' as polygon"
    found = lines(dropped_why={"ant": NO_SUCH_LABEL, "bus": misfit})
    assert found[-1] == f"  bus: {misfit}"
    many = lines(dropped_why={f"bus {number}": misfit for number in range(9)})
    assert len(many) == 2 + 1 + 5 + 1
    assert many[-1].startswith("  … and 4 more")


def test_all_of_them_are_in_the_file():
    why = {f"thing {number}": NO_SUCH_LABEL for number in range(75)}
    assert set(RunReport(dropped_why=why).as_json()["dropped"]) == set(why)


def test_a_dry_run_says_so():
    found = lines(dry=True, removed=1)
    assert found[0] == "dry run     nothing was sent to the server"
    assert found[-1] == "replaced    1 earlier annotation would be removed"
    assert not any("dry run" in line for line in lines())


def test_what_was_done_has_its_own_word():
    found = lines(looked="linked", made="tracks")
    assert found[:2] == ["frames      3 of 3 linked, 0 skipped", "tracks      0"]


def test_many_labels_and_reasons_are_bounded():
    report = RunReport()
    report.annotations.update({f"thing {number}": 100 - number for number in range(40)})
    report.refused.update({f"attribute: got '{number}'": 20 - number for number in range(12)})
    found = list(report.lines())
    assert "  … and 10 more, 655 together (see --report)" in found
    assert "  … and 2 more, 19 together (see --report)" in found
    assert len(found) == 1 + 1 + 31 + 1 + 11
