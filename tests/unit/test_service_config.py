import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.settings.changes import changes, in_effect
from agent.settings.server import ServerSettings
from agent.settings.service import load_config, secret
from agent.settings.tables import Config, EngineSettings, ModelSettings, RuleSettings
from agent.settings.toml import read_table

EVERYTHING = """
[cvat]
host = "http://cvat.test"
user = "bot"

[engine]
device = "cuda:1"
memory_mb = 4096
idle_minutes = 30
embeddings_mb = 256.5

[service]
host = "127.0.0.1"
port = 0
secret_env = "STATUS"
allowed_hosts = ["sidecar.test"]
state_dir = "state"
grace_seconds = 0
keep_runs_days = 30
batch_lanes = 3
interactive_lanes = 5
log_format = "json"
log_level = "debug"

[queue]
poll_seconds = 30
heartbeat_seconds = 5
frames_mb = 64
max_bad_frames = 0

[gateway]
host = "::"
port = 8071
direct_ports = 9000
secret_env = "GATEWAY"
allow = ["10.0.0.0/8"]
score_attribute = ""
prefetch = false
prefetch_mb = 32
max_body_mb = 8
max_megapixels = 50
memory_mb = 512
timeout = 55
concurrency = 4

[watch]
webhook_secret_env = "HOOK"
check_seconds = 2

[[models]]
id = "faces"
model = "opencv:face"
name = "Faces"
description = "Finds faces"
options = { size = 3, names = ["a", "b"], nested = { deep = 1.5, on = true } }
device = "cpu"
batch_size = 4
threshold = 0.25
label_map = "mine.toml"
load = "use"
idle_minutes = 0
doors = ["gateway"]
function_id = 7

[[rules]]
name = "night"
model = "faces"
projects = [1, 2]
tasks = [3]
task_name = "night-*"
label = "car*"
assignee = "bot"
stages = ["annotation", "validation"]
states = ["new", "rejected"]
media = "video"
updated_within_hours = 24
every_seconds = 10
quiet_hours = ["22:00", "06:00"]
jobs_per_hour = 6
options = { threshold = 0.5, replace = "own" }
state_when_started = "in progress"
state_when_done = "completed"
state_when_failed = "rejected"
issue_on_failure = true
enabled = false
"""


def written(tmp_path, text):
    file = tmp_path / "service.toml"
    file.write_text(text, encoding="utf-8")
    return file


def load(tmp_path, text):
    return load_config(written(tmp_path, text))


def refusal(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(tmp_path / "service.toml") + ": ")


class TestReading:
    def test_every_key_there_is_is_read(self, tmp_path):
        (tmp_path / "mine.toml").write_text("")
        config = load(tmp_path, EVERYTHING)
        for part in (config.engine, config.service, config.queue, config.gateway, config.watch):
            for key in dataclasses.fields(part):
                default = key.default if key.default is not dataclasses.MISSING else None
                if key.name not in ("host",) or part is config.gateway:
                    assert getattr(part, key.name) != default, f"{type(part).__name__}.{key.name} was not read"
        (model,), (rule,) = config.models, config.rules
        assert model.options == {"size": 3, "names": ["a", "b"], "nested": {"deep": 1.5, "on": True}}
        assert (model.title, model.doors, model.function_id) == ("Faces", ("gateway",), 7)
        assert (rule.projects, rule.states, rule.quiet_hours) == ((1, 2), ("new", "rejected"), ("22:00", "06:00"))
        assert rule.options == {"threshold": 0.5, "replace": "own"}
        assert config.server == ServerSettings(host="http://cvat.test", user="bot")

    def test_relative_paths_are_relative_to_the_file(self, tmp_path):
        (tmp_path / "mine.toml").write_text("")
        config = load(tmp_path, EVERYTHING)
        assert config.service.state_dir == tmp_path / "state"
        assert config.model("faces").label_map == tmp_path / "mine.toml"

    def test_a_label_map_that_is_no_file_is_the_name_of_one_that_comes_along(self, tmp_path):
        model = load(tmp_path, '[[models]]\nid = "a"\nmodel = "x:y"\nlabel_map = "coco-to-voc"').model("a")
        assert model.label_map == Path("coco-to-voc")

    def test_doors_without_a_table_stay_shut(self, tmp_path):
        config = load(tmp_path, "")
        assert (config.queue, config.gateway, config.rules, config.models) == (None, None, (), ())
        assert load(tmp_path, "[queue]").queue is not None
        assert load(tmp_path, "[gateway]").gateway is not None

    def test_a_model_without_a_name_goes_by_its_id(self, tmp_path):
        assert load(tmp_path, '[[models]]\nid = "a"\nmodel = "x:y"').model("a").title == "a"
        with pytest.raises(KeyError):
            load(tmp_path, "").model("a")

    def test_flags_win_over_the_file(self, tmp_path):
        file = written(tmp_path, EVERYTHING)
        assert load_config(file, host="http://other.test").server.host == "http://other.test"


ONE = '[[models]]\nid = "a"\nmodel = "x:y"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engines]", "unknown table [engines]; did you mean 'engine'?"),
        ("models = 3", "models: got 3, allowed: tables [[models]]"),
        ("[[queue]]", "queue: got [{}], allowed: a table [queue]"),
        ("[engine]\nmemory = 1", "engine: unknown key 'memory'; did you mean 'memory_mb'?"),
        ("[queue]\nzebra = 1", "queue: unknown key 'zebra'; allowed: poll_seconds, heartbeat_seconds"),
        ("[engine]\nmemory_mb = 0", "engine: memory_mb: got 0, allowed: more than 0"),
        ('[engine]\nmemory_mb = "4"', "engine: memory_mb: got '4', allowed: a number"),
        ("[engine]\nmemory_mb = true", "engine: memory_mb: got True, allowed: a number"),
        ("[engine]\nmemory_mb = nan", "engine: memory_mb: got nan, allowed: "),
        ("[engine]\nmemory_mb = inf", "engine: memory_mb: got inf, allowed: "),
        ("[engine]\nidle_minutes = -1", "engine: idle_minutes: got -1, allowed: 0 or more"),
        ("[service]\nport = 65536", "service: port: got 65536, allowed: 65535 or less"),
        ("[service]\nport = 80.5", "service: port: got 80.5, allowed: a whole number"),
        ("[service]\nport = 1979-05-27", "service: port: got '1979-05-27', allowed: a whole number"),
        ('[service]\nlog_format = "xml"', "service: log_format: got 'xml', allowed: 'text' or 'json'"),
        ('[service]\nallowed_hosts = "one"', "service: allowed_hosts: got 'one', allowed: a list"),
        ("[service]\nallowed_hosts = [1]", "service: allowed_hosts[0]: got 1, allowed: text"),
        ("[service]\nbatch_lanes = 0", "service: batch_lanes: got 0, allowed: 1 or more"),
        ("[gateway]\nprefetch = 1", "gateway: prefetch: got 1, allowed: true or false"),
        ("[gateway]\nallow = ['10.0.0.0/33']", "gateway: allow: got '10.0.0.0/33', allowed: an address or a network"),
        ("[gateway]\nallow = ['::1', 'here', '10.0.0.0/8']", "gateway: allow: got 'here', allowed: an address or a ne"),
        ("[gateway]\nport = 8090", "gateway: port: got 8090, allowed: others than 8090, where the status page is"),
        ("[gateway]\ndirect_ports = 8070\n" + ONE, "gateway: direct_ports: got 8070 to 8070, allowed: ports up to "),
        ("[gateway]\ndirect_ports = 8090\n" + ONE, "gateway: direct_ports: got 8090 to 8090, allowed: others than 809"),
        ("[gateway]\ndirect_ports = 65535\n" + ONE + ONE.replace('"a"', '"b"'), "gateway: direct_ports: got 65535 to"),
        ("[[models]]\nid = 'a'", "models 'a': the key 'model' is missing"),
        ("[[models]]\nmodel = 'x:y'", "models: the key 'id' is missing"),
        ("[[models]]\nid = 'a b'\nmodel = 'x:y'", "models 'a b': id: got 'a b', allowed: 1 to 64 letters (a to z)"),
        (ONE + "threshold = 1.5", "models 'a': threshold: got 1.5, allowed: 1 or less"),
        (ONE + "doors = ['door']", "models 'a': doors[0]: got 'door', allowed: 'queue' or 'gateway'"),
        (ONE + "options = 3", "models 'a': options: got 3, allowed: a table"),
        (ONE + ONE, "models: 'a' is there 2 times, allowed: once"),
        (ONE + "[[rules]]\nname = 'r'\nmodel = 'b'", "rules 'r': model: got 'b', allowed: an id of [[models]]: a"),
        ("[[rules]]\nname = 'r'\nmodel = 'b'", "rules 'r': model: got 'b', allowed: an id of [[models]]: none is"),
        (ONE + "[[rules]]\nname = 'r'\nmodel = 'a'\n" * 2, "rules: 'r' is there 2 times, allowed: once"),
        (ONE + "[[rules]]\nname = 'r'\nmodel = 'a'\nquiet_hours = ['1', '2']",
         "rules 'r': quiet_hours[0]: got '1', allowed: a time of the day from 00:00 to 23:59, like '22:00' or '06:30'"),
        (ONE + "[[rules]]\nname = 'r'\nmodel = 'a'\nquiet_hours = ['01:00']", "rules 'r': "),
        ("[service]\nhost = '0.0.0.0'", "service: secret_env: got none, allowed: the name of a variable with a passw"),
        ("[service]\nhost = 'sidecar.test'", "service: secret_env: got none, allowed: the name of a variable with a"),
        ("[service]\nallowed_hosts = ['http://a']", "service: allowed_hosts[0]: got 'http://a', allowed: a name alone"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_the_key(tmp_path, text, said):
    assert refusal(tmp_path, text).startswith(said)


def test_a_gateway_may_have_the_status_pages_port_at_another_address(tmp_path):
    text = "[gateway]\nport = 8090\nhost = '127.0.0.2'\ndirect_ports = 8089\n" + ONE
    assert load(tmp_path, text).gateway.port == 8090
    assert "where the status page is" in refusal(tmp_path, text.replace("127.0.0.2", "0.0.0.0"))
    hidden = "[gateway]\ndirect_ports = 8090\n" + ONE + "doors = ['queue']"
    assert load(tmp_path, hidden).gateway.direct_ports == 8090, "a model that is not for the gateway has no port"


def mistakes(tmp_path, text):
    """What is wrong, without the file."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
    return [line.removeprefix(str(tmp_path / "service.toml") + ": ") for line in caught.value.mistakes]


RULE = "[[rules]]\nname = 'r'\nmodel = "


def built_of(*pairs):
    """Models, each with the one that it is built of."""
    return "".join(f"[[models]]\nid = '{a}'\nmodel = 'flips:'\noptions = {{ of = '{b}' }}\n" for a, b in pairs)


class TestSeveralMistakes:
    def test_each_is_a_line(self, tmp_path, monkeypatch):
        monkeypatch.delenv("NOT_SET", raising=False)
        text = (
            "zoo = 1\n[cvat]\nport = 0\nverify = true\npassword_env = 'NOT_SET'\n[queue]\nzebra = 1\nframes_mb = 'x'\n"
            + ONE + "threshold = 2\nload = 'now'\n" + ONE + "[[models]]\nmodel = 'x:y'\n[[models]]\nid = 'c'\n"
            + "[[rules]]\nmodel = 'a'\n" + (RULE + "'a'\nstages = ['x', 'y', 'z']\n") * 2
        )  # fmt: skip
        found = mistakes(tmp_path, text)
        said = [
            "unknown table [zoo]; ", "cvat: port: got 0, ", "cvat: unknown key 'verify'; did you mean 'verify_ssl'?",
            "cvat: password_env: the environment has no variable NOT_SET",
            "models[0] 'a': threshold: got 2, ", "models[0] 'a': load: got 'now', ",
            "models[2]: the key 'id' is missing", "models 'c': the key 'model' is missing",
            "rules[0]: the key 'name' is missing",
            "rules[1] 'r': stages[0]: got 'x', ", "rules[2] 'r': stages[0]: got 'x', ",
            "queue: unknown key 'zebra'; ", "queue: frames_mb: got 'x', ",
            "models: 'a' is there 2 times, ", "rules: 'r' is there 2 times, ",
        ]  # fmt: skip
        assert len(found) == len(said), found
        assert [line for line, start in zip(found, said, strict=True) if not line.startswith(start)] == []

    def test_the_rules_of_missing_models_are_all_told(self, tmp_path):
        text = (
            "[engines]\n[service]\nport = -1\n" + ONE + RULE + "'b'\nzebra = 1\n" + RULE.replace("'r'", "'s'") + "'c'"
        )
        assert [line.partition(": got")[0].partition(";")[0] for line in mistakes(tmp_path, text)] == [
            "unknown table [engines]", "rules 'r': unknown key 'zebra'", "service: port", "rules 'r': model",
            "rules 's': model",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "start"),
        [
            # A model with a mistake is there all the same, for rules and for its name.
            (ONE + "threshold = 2\n" + RULE + "'a'", "models 'a': threshold: "),
            # What a rule means may be the model, the table or the key that is misspelt.
            ("[[models]]\nidd = 'a'\nmodel = 'x:y'\n" + RULE + "'a'", "models: unknown key 'idd'; did you mean 'id'?"),
            ("[[model]]\nid = 'a'\nmodel = 'x:y'\n" + RULE + "'a'", "unknown table [model]; did you mean 'models'?"),
            ("[[detectors]]\nid = 'a'\n" + RULE + "'a'", "unknown table [detectors]; allowed: "),
            ("[models]\nid = 'a'\nmodel = 'x:y'\n" + RULE + "'a'", "models: got {"),
            ("[[models]]\nid = 5\nmodel = 'x:y'\n" + RULE + "'5'", "models: id: got 5, "),
            # So may a key that seems to be missing.
            ("[[models]]\nid = 'a'\nmodle = 'x:y'", "models 'a': unknown key 'modle'; did you mean 'model'?"),
            ("[[models]]\nid = 'a'\nweights = 'x:y'", "models 'a': unknown key 'weights'; allowed: "),
            (ONE + "[[rules]]\nid = 'r'\nmodel = 'a'", "rules 'r': unknown key 'id'; allowed: "),
            # The password that others are to show.
            ("[service]\nhost = '0.0.0.0'\nsecret_evn = 'X'", "service: unknown key 'secret_evn'; did you mean "),
            # A secret is not looked for where its key is wrong, or one of two is to go.
            ("[cvat]\ntoken_env = 5", "cvat: token_env: got 5, allowed: text"),
            ("[cvat]\ntoken_env = 'NOT_SET'\ntoken_file = 'gone'\nuser = 'x'", "cvat: got token_env and token_file, "),
            # One list is one mistake, and so is one circle.
            (ONE + "doors = ['x', 'y', 'z']", "models 'a': doors[0]: got 'x', "),
            (ONE + RULE + "'a'\nquiet_hours = []", "rules 'r': the key 'quiet_hours[0]' is missing"),
            (built_of("ca", "ab", "ba"), "models 'a': it is a part of itself: c -> a -> b -> a"),
        ],
    )  # fmt: skip
    def test_none_is_told_that_only_follows_from_another(self, tmp_path, monkeypatch, text, start):
        monkeypatch.delenv("NOT_SET", raising=False)
        (line,) = mistakes(tmp_path, text)
        assert line.startswith(start)

    def test_each_circle_is_told(self, tmp_path):
        assert mistakes(tmp_path, built_of("ab", "ba", "cc")) == [
            "models 'a': it is a part of itself: a -> b -> a", "models 'c': it is a part of itself: c -> c",
        ]  # fmt: skip

    def test_a_key_that_is_missing_beside_another_that_is_misspelt_is_told(self, tmp_path):
        assert mistakes(tmp_path, "[[models]]\nid = 'a'\nbatchsize = 3") == [
            "models 'a': unknown key 'batchsize'; did you mean 'batch_size'?", "models 'a': the key 'model' is missing",
        ]  # fmt: skip


def test_a_file_that_is_no_toml_is_named(tmp_path):
    assert refusal(tmp_path, "[[[").startswith("cannot be read: ")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "not-there.toml")


def test_a_password_is_not_needed_on_this_machine(tmp_path):
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert load(tmp_path, f"[service]\nhost = '{host}'").service.host == host


@given(st.recursive(st.booleans() | st.integers(-5, 5) | st.text(max_size=3), lambda s: st.lists(s, max_size=3)))
def test_any_value_is_taken_or_refused_with_its_key(value):
    """Whatever stands at a key, it is either of its type or a ConfigError of one line that names the key."""
    for kind in (EngineSettings, RuleSettings):
        for key in dataclasses.fields(kind):
            table = {"name": "n", "model": "m"} if kind is RuleSettings else {}
            said = refusal_of(kind, {**table, key.name: value})
            assert said is None or (said.startswith("here: ") and key.name in said)


def refusal_of(kind, table):
    try:
        read_table(kind, table, "here")
    except ConfigError as error:
        return str(error)


class TestSecret:
    def test_comes_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("WORD", "open")
        assert secret("WORD", "service: secret_env") == "open"
        assert secret(None, "service: secret_env") is None

    @pytest.mark.parametrize("value", [None, ""])
    def test_a_variable_without_one_is_told(self, monkeypatch, value):
        monkeypatch.delenv("WORD", raising=False)
        if value is not None:
            monkeypatch.setenv("WORD", value)
        with pytest.raises(ConfigError, match=r"service: secret_env: .*WORD"):
            secret("WORD", "service: secret_env")


class TestChanges:
    def test_nothing_is_said_where_nothing_changed(self, tmp_path):
        assert changes(load(tmp_path, EVERYTHING), load(tmp_path, EVERYTHING)) == []

    def test_every_difference_is_a_line_with_its_key(self, tmp_path):
        old = load(tmp_path, EVERYTHING)
        text = EVERYTHING.replace('device = "cuda:1"', 'device = "cpu"').replace("threshold = 0.25", "threshold = 0.5")
        text = (
            text.replace("jobs_per_hour = 6", "jobs_per_hour = 7").replace("[queue]", "").replace("poll_seconds", "#")
        )
        for key in ("heartbeat_seconds", "frames_mb", "max_bad_frames"):
            text = re.sub(rf"^{key} = .*$", "", text, flags=re.MULTILINE)
        lines = changes(old, load(tmp_path, text))
        assert lines == [
            "engine: device: 'cuda:1' -> 'cpu'",
            "queue: removed",
            "models faces: threshold: 0.25 -> 0.5",
            "rules night: jobs_per_hour: 6 -> 7",
        ]
        assert "queue: added" in changes(load(tmp_path, text), old)

    def test_models_that_come_and_go_and_move(self, tmp_path):
        names = [f'[[models]]\nid = "{name}"\nmodel = "x:y"\n' for name in "abcdefgh"]
        old, new = load(tmp_path, "".join(names[:4])), load(tmp_path, "".join([*names[:2][::-1], *names[4:]]))
        assert changes(old, new) == [
            "models c: removed", "models d: removed", "models e: added", "models f: added", "models g: added",
            "models h: added", "models: order: a, b -> b, a",
        ]  # fmt: skip

    def test_secrets_do_not_show(self):
        def config(password):
            return Config(file=Path("f"), server=ServerSettings(user="bot", password=password, token=password))

        lines = changes(config("old-secret"), config("new-secret"))
        assert lines == ["server: password changed", "server: token changed"]

    def test_the_order_of_lines_is_that_of_the_file(self, tmp_path):
        names = [f'[[models]]\nid = "{name}"\nmodel = "x:y"\n' for name in "hgfedcba"]
        old = load(tmp_path, "".join(names))
        new = load(tmp_path, "".join(name + "threshold = 0.5\n" for name in names))
        assert [line.split(":")[0] for line in changes(old, new)] == [f"models {name}" for name in "hgfedcba"]


class TestInEffect:
    def test_what_needs_a_restart_stays_as_it_is_and_is_named(self, tmp_path):
        old = load(tmp_path, EVERYTHING)
        text = EVERYTHING.replace("port = 0", "port = 8099").replace("port = 8071", "port = 8072")
        text = text.replace("batch_lanes = 3", "batch_lanes = 4").replace('"state"', '"elsewhere"')
        text = text.replace("cvat.test", "other.test").replace("grace_seconds = 0", "grace_seconds = 9")
        config, waiting = in_effect(old, load(tmp_path, text))
        assert waiting == [
            "service.port", "service.state_dir", "service.batch_lanes", "cvat.host",
        ]  # fmt: skip
        assert (config.service.port, config.service.batch_lanes) == (0, 3)
        assert (config.gateway.port, config.service.grace_seconds) == (8072, 9), "the rest is in effect"
        assert config.server == old.server

    def test_the_gateway_keeps_its_address(self, tmp_path):
        old = load(tmp_path, "[gateway]\nport = 1")
        config, waiting = in_effect(old, load(tmp_path, '[gateway]\nport = 2\nhost = "0.0.0.0"'))
        assert (config.gateway.host, config.gateway.port, waiting) == ("127.0.0.1", 2, ["gateway.host"])

    def test_a_page_that_others_reach_keeps_its_password(self, tmp_path):
        gate = "[gateway]\n[service]\n"
        old = load(tmp_path, gate + 'host = "0.0.0.0"\nsecret_env = "WORD"')
        config, waiting = in_effect(old, load(tmp_path, gate + 'host = "127.0.0.1"'))
        assert (config.service.host, config.service.secret_env) == ("0.0.0.0", "WORD")
        assert waiting == ["service.host", "service.secret_env"]
        other = in_effect(old, load(tmp_path, gate + 'host = "127.0.0.1"\nsecret_env = "OTHER"'))[0]
        assert other.service.secret_env == "OTHER"

    def test_a_door_may_come_and_go(self, tmp_path):
        one, other = load(tmp_path, "[gateway]\nport = 1"), load(tmp_path, "")
        assert in_effect(one, other) == (other, [])
        assert in_effect(other, one) == (one, [])


def test_settings_of_models_are_values():
    assert ModelSettings("a", "x:y") == ModelSettings("a", "x:y")
