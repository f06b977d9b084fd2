"""Rules: what is wrong with them, what they ask the server, and which jobs are theirs."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.cvat.jobs import Job
from agent.doors.watch.rules import read_rules
from agent.doors.watch.webhooks import Event
from agent.errors import ConfigError
from agent.settings.service import load_config

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB = Job(7, 3, "night-12", 5, "bot", "new", "annotation", "annotation", "image", 0, "2026-03-01T11:00:00.000000Z")
MODEL = '[[models]]\nid = "yolo"\nmodel = "local:x.onnx"\nthreshold = 0.4\ndevice = "cpu"\n'


def read(folder, text, model=MODEL):
    file = folder / "service.toml"
    file.write_text(f'[cvat]\nhost = "http://a"\n{model}\n[[rules]]\nname = "r"\nmodel = "yolo"\n{text}\n')
    (rule,) = read_rules(load_config(file))
    return rule


class TestReading:
    def test_a_runs_options_are_the_rules_and_the_models(self, tmp_path):
        (tmp_path / "mine.toml").write_text('[labels]\ncar = "vehicle"\n')
        rule = read(
            tmp_path, 'options = { frames = "every:2", mapping = { a = "b", c = "" }, label_map = "mine.toml" }'
        )
        options = rule.options
        assert (options.model, options.device) == (f"local:{tmp_path / 'x.onnx'}", "cpu")
        assert (options.threshold, options.rule) == (0.4, "r")
        assert (options.selection, options.mapping, options.replace) == ("every:2", {"a": "b", "c": None}, "rule")
        assert options.label_map == str(tmp_path / "mine.toml")
        assert read(tmp_path, "options = { threshold = 0.7 }").options.threshold == 0.7
        assert read(tmp_path, 'options = { label_map = "coco-80" }').options.label_map == "coco-80"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("options = { tresh = 1 }", "options: unknown key 'tresh'"),
            ("options = { threshold = 1.5 }", "options: threshold: got 1.5, allowed: 1 or less"),
            ('options = { frames = "some" }', "options: .*got 'some'"),
            ('options = { replace = "mine" }', "options: replace: got 'mine'"),
            ("options = { roi = [5, 0, 5, 9] }", "options: roi: got"),
            ("options = { roi = [1, 2] }", "options: .*roi"),
            ('options = { label_map = "none-such" }', "options: label map 'none-such'"),
            ('options = { label_map = "maps/mine.toml" }', "options: label map /.*/maps/mine.toml"),
            ("options = { mapping = { a = 1 } }", "options: mapping: a: got 1, allowed: text"),
            ("options = { device = 1 }", "options: unknown key 'device'"),
            ("states = []", "states: got none"),
            ('state_when_started = "new"', "state_when_started: got 'new', allowed: a state that is none of"),
            ('quiet_hours = ["22:00", "22:00"]', "quiet_hours"),
            ('quiet_hours = ["22:00", "25:00"]', "quiet_hours"),
            ("every_seconds = 0.1", "every_seconds"),
            ("jobs_per_hour = 0", "jobs_per_hour"),
        ],
    )
    def test_what_is_wrong_names_the_rule_and_the_key(self, tmp_path, text, said):
        with pytest.raises(ConfigError, match=f"rules 'r': {said}"):
            read(tmp_path, text)

    def test_the_key_is_of_what_changes_the_result(self, tmp_path):
        plain = read(tmp_path, "").key("1")
        same = read(tmp_path, 'every_seconds = 9\noptions = { max_bad_frames = 3, replace = "none" }').key("1")
        assert plain == same
        others = [
            read(tmp_path, "").key("2"),
            read(tmp_path, "options = { threshold = 0.41 }").key("1"),
            read(tmp_path, "", MODEL + "options = { nms = 0.5 }\n").key("1"),
            read(tmp_path, "", MODEL.replace("x.onnx", "y.onnx")).key("1"),
        ]
        assert len({plain, *others}) == 5


class TestConditions:
    def test_the_server_is_asked_what_it_can_filter_by(self, tmp_path):
        text = (
            'assignee = "bot"\nprojects = [1, 2]\ntasks = [3]\ntask_name = "a*night-[0-9]"\nupdated_within_hours = 2\n'
            'stages = ["annotation"]\nstates = ["new", "rejected"]'
        )
        found = list(read(tmp_path, text).conditions(NOW))
        assert json.loads(json.dumps(found)) == [
            {"in": [{"var": "state"}, ["new", "rejected"]]},
            {"in": [{"var": "stage"}, ["annotation"]]},
            {"==": [{"var": "type"}, "annotation"]},
            {"==": [{"var": "assignee"}, "bot"]},
            {"in": [{"var": "project_id"}, [1, 2]]},
            {"in": [{"var": "task_id"}, [3]]},
            {"in": ["night-", {"var": "task_name"}]},
            {">=": [{"var": "updated_date"}, "2026-03-01T10:00:00.000000Z"]},
        ]

    @pytest.mark.parametrize(
        ("text", "job", "reason"),
        [
            ("", {}, None),
            ('assignee = "bot"', {}, None),
            ('assignee = "bot"', {"assignee": None}, "assigned to nobody"),
            ('assignee = "bot"', {"assignee": "alice"}, "assigned to alice, not to bot"),
            ("", {"state": "in progress"}, "its state is 'in progress'"),
            ("", {"stage": "acceptance"}, "its stage"),
            ("", {"type": "ground_truth"}, "a job of the type"),
            ("options = { ground_truth = true }", {"type": "ground_truth"}, None),
            ("options = { ground_truth = true }", {"type": "consensus_replica"}, "a job of the type"),
            ("projects = [5]", {}, None),
            ("projects = [6]", {}, "its project is 5"),
            ("tasks = [4]", {}, "its task is 3"),
            ("", {"media": "audio"}, "it holds audio data"),
            ("", {"first_frame": None}, "data"),
            ('media = "video"', {}, "it holds image data"),
            ('task_name = "night-??"', {}, None),
            ('task_name = "NIGHT-*"', {}, "its task's name is 'night-12'"),
            ('task_name = "*"', {"task_name": None}, "hidden"),
        ],
    )
    def test_which_jobs_are_the_rules(self, tmp_path, text, job, reason):
        found = read(tmp_path, text).unfit(replace(JOB, **job))
        assert found is None if reason is None else reason in found

    def test_labels_are_patterns_too(self, tmp_path):
        rule = read(tmp_path, 'label = "car*"')
        assert rule.wants_labels(["dog", "cars"])
        assert not rule.wants_labels(["Car"])
        assert read(tmp_path, "").wants_labels([])

    def test_age(self, tmp_path):
        rule = read(tmp_path, "updated_within_hours = 1.5")
        assert not rule.is_too_old(JOB, NOW)
        assert rule.is_too_old(replace(JOB, updated="2026-03-01T10:00:00.000000Z"), NOW)

    def test_a_job_is_held_in_the_state_that_we_gave_it(self, tmp_path):
        held = read(tmp_path, 'state_when_started = "in progress"')
        assert held.taken_back(replace(JOB, state="in progress")) is None
        assert "'new'" in held.taken_back(JOB)
        assert read(tmp_path, "").taken_back(JOB) is None
        assert "'completed'" in read(tmp_path, "").taken_back(replace(JOB, state="completed"))
        assert "gone" in held.taken_back(None)

    @pytest.mark.parametrize(
        ("project", "task", "concerned"),
        [(5, 3, True), (None, None, True), (6, 3, False), (5, 4, False), (None, 3, True)],
    )
    def test_events_that_may_be_about_a_rules_jobs(self, tmp_path, project, task, concerned):
        assert read(tmp_path, "projects = [5]\ntasks = [3]").concerns(Event("update:task", project, task)) is concerned
