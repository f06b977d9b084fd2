import base64
import json
import logging
import sys
import threading
import warnings
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.log_fields import log_fields
from agent.logs import HIDDEN, JsonLines, Lines, Redactor, known_secrets, set_up
from agent.settings.server import ServerSettings
from agent.settings.tables import Config, GatewaySettings, ModelSettings, ServiceSettings, WatchSettings

SECRET = 'pa"ss wörd/&1'


def record(message, *args, exc_info=None, level=logging.INFO):
    return logging.LogRecord("agent.pool.pool", level, __file__, 1, message, args, exc_info)


def caught(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


class TestLines:
    def test_a_line_has_time_level_logger_text_and_fields(self):
        lines = Lines(Redactor())
        with log_fields(request="ab12", model="yolo"):
            line = lines.format(record("loaded in %.1f s", 2))
        time, rest = line.split(" ", 1)
        assert rest == "INFO agent.pool.pool: loaded in 2.0 s [request=ab12 model=yolo]"
        assert time.endswith("+00:00")
        assert lines.format(record("plain")).endswith("agent.pool.pool: plain")

    def test_json_has_them_as_keys(self):
        with log_fields(request="ab12", run="cd34"):
            line = JsonLines(Redactor()).format(record("two\nlines", level=logging.WARNING))
        values = json.loads(line)
        assert "\n" not in line
        assert values.pop("time").startswith("20")
        assert values == {
            "level": "warning", "logger": "agent.pool.pool", "message": "two\\nlines", "request": "ab12", "run": "cd34",
        }  # fmt: skip

    def test_nobody_can_forge_a_line(self):
        """Texts of servers, models and people may hold line feeds and escape sequences."""
        text = "evil\n2026-01-01T00:00:00+00:00 INFO agent: all is well\r\x1b[2J\u2028next\x85"
        formatted = Lines(Redactor()).format(record("%s", text))
        assert len(formatted.splitlines()) == 1
        assert "\x1b" not in formatted
        formatted = Lines(Redactor()).format(record("it failed", exc_info=caught(ValueError(text))))
        first, *below = formatted.splitlines()
        assert first.endswith("it failed")
        assert all(line.startswith("    ") for line in below)
        assert "ValueError: evil" in formatted

    def test_tracebacks_are_there(self):
        error = caught(KeyError("inner"))
        assert "KeyError: 'inner'" in json.loads(JsonLines(Redactor()).format(record("x", exc_info=error)))["exception"]
        assert "    KeyError: 'inner'" in Lines(Redactor()).format(record("x", exc_info=error))

    def test_a_wrong_call_is_still_a_line(self):
        assert "100%d" in Lines(Redactor()).format(record("100%d of %s", "x"))


class TestRedactor:
    @pytest.mark.parametrize("form", [Lines, JsonLines])
    def test_a_secret_shows_nowhere(self, form):
        formatter = form(Redactor([SECRET]))
        with log_fields(request=SECRET):
            text = formatter.format(record(f"a {SECRET} b %s", SECRET, exc_info=caught(OSError(f"at {SECRET}"))))
        assert SECRET not in text
        assert json.dumps(SECRET)[1:-1] not in text
        assert "wörd" not in text
        assert "ss w" not in text
        assert text.count(HIDDEN) == 4

    @pytest.mark.parametrize(
        "spelled",
        [
            SECRET, repr(SECRET), json.dumps({"p": SECRET}), "https://x/?p=pa%22ss%20w%C3%B6rd%2F%261",
            "p=pa%22ss+w%C3%B6rd%2F%261", base64.b64encode(SECRET.encode()).decode(),
        ],
    )  # fmt: skip
    def test_however_it_is_spelled(self, spelled):
        hidden = Redactor([SECRET])(f"x {spelled} y")
        assert HIDDEN in hidden
        assert "rd" not in hidden

    def test_what_looks_like_credentials_is_hidden_although_nobody_named_it(self):
        redact = Redactor()
        assert redact("Authorization: Bearer abcdefgh12345678ijkl") == f"Authorization: Bearer {HIDDEN}"
        assert redact("{'Authorization': 'Token 0123456789abcdef0123'}") == f"{{'Authorization': 'Token {HIDDEN}'}}"
        assert redact("http://bot:geheim@cvat.test/api") == f"http://{HIDDEN}@cvat.test/api"
        for plain in (
            "the token is missing",
            "http://cvat.test:8080/a@b",
            "a bearer of news-from-everywhere",
            "basic ",
        ):
            assert redact(plain) == plain

    def test_one_secret_within_another(self):
        assert Redactor(["abc", "abcdef"])("abcdef abc") == f"{HIDDEN} {HIDDEN}"

    @pytest.mark.parametrize(
        ("secret", "text"),
        [
            ("secret", "gateway: secret_env: the environment has no variable GATE_secret"),
            ("secret", "secrets, mysecret, secret1, _secret, sécret, secreté"),
            ("word", "password, words"),
            ("8", "port 8080 of 127.0.0.18"),
            ("", "nothing"),
        ],
    )
    def test_a_short_one_is_no_part_of_a_longer_word(self, secret, text):
        assert Redactor([secret])(text) == text

    @pytest.mark.parametrize(
        ("secret", "text"),
        [
            ("secret", "the key secret_env holds {}."),
            ("secret", "https://x/?a=b&p={}&q=1"), ("secret", "https://x/{}/api/functions"), ("secret", "://bot:{} @x"),
            ("secret", "a%3D{}%26b"), ("secret", "a%253D{}%2526"), ("secret", "X-Sidecar-Secret: {}\r\n"),
            ("secret", '{{"a": "{}"}}'), ("secret", r'"line\n{}\n"'), ("secret", r"b'\x00{}\x00'"), ("secret", "{}"),
            ("secret", r"\u2028{}\u2028"), ("secret", "\x1b[31m{}\x1b[0m"), ("secret", "\x1b[1;31m{}"),
            ("secret", "a-{}-b"),
            ("/secret/", "not{}so"), ("$ecret", "a{}.b"), ("s-e", "{}, one-{}"), ("&%", "a{}b{}"), ("é", "%3D{}%C3"),
            ("a-very-long-one-it-is", "in{}words"), ("abcdefghijklmnop", "token{}s"), ("01234567890123456", "1{}2"),
        ],
    )  # fmt: skip
    def test_it_is_hidden_wherever_it_is_a_word_of_its_own_or_cannot_be_one(self, secret, text):
        assert Redactor([secret])(text.format(secret, secret)) == text.format(HIDDEN, HIDDEN)

    @given(
        secret=st.text(st.characters(exclude_categories=("C",), exclude_characters="*"), min_size=1, max_size=30),
        before=st.sampled_from(
            ["", "password=", '{"p": "', "://", "(", "Basic ", "a%3D", r"a\n", r"\x00", "\n", "'", ", "]
        ),
        after=st.sampled_from(["", "&b=1", '"}', "@host", ")", " ", "%26b", r"\n", r"\x00", "\n", "'", ", b"]),
        spell=st.sampled_from(
            [str, lambda text: quote(text, safe=""), quote_plus, lambda text: json.dumps(text)[1:-1]]
        ),
    )
    @settings(max_examples=300, deadline=None)
    def test_no_secret_is_left_between_what_ends_a_word(self, secret, before, after, spell):
        # What is there without it, or comes to be by two neighbours, is not shown by us.
        rest = before + after
        assume(secret not in rest and spell(secret) not in rest)
        hidden = Redactor([secret])(f"{before}{spell(secret)}{after}")
        assert HIDDEN in hidden
        assert spell(secret) not in hidden.replace(HIDDEN, "\0")

    def test_nothing_known_changes_nothing(self):
        assert Redactor([])("text") == "text"
        assert Redactor([""])("text") == "text"

    def test_what_it_knows_can_change(self):
        redact = Redactor(["old-one"])
        redact.know(["new-one"])
        assert redact("old-one new-one") == f"old-one {HIDDEN}"


def test_secrets_are_found_in_settings_and_environment(monkeypatch):
    for name, value in (
        ("STATUS", "status-word"), ("GATE", "gate-word"), ("HOOK", "hook-word"), ("HUB", "hub-word"),
        ("SOME_API_KEY", "key-of-others"), ("SHORT_TOKEN", "on"), ("HARMLESS", "harmless-word"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    config = Config(
        file=Path("f"),
        server=ServerSettings(user="bot", password="pass-word", token="token-word"),
        models=(ModelSettings("a", "hf:x", options={"token_env": "HUB", "size": 3, "other_env": "NOT_SET"}),),
        service=ServiceSettings(secret_env="STATUS"),
        gateway=GatewaySettings(secret_env="GATE"),
        watch=WatchSettings(webhook_secret_env="HOOK"),
    )
    found = known_secrets(config)
    assert found >= {
        "status-word", "gate-word", "hook-word", "hub-word", "pass-word", "token-word", "key-of-others",
        "bot:pass-word",
    }  # fmt: skip
    assert not found & {"on", "harmless-word", ""}


class TestSetUp:
    @pytest.fixture(autouse=True)
    def _as_before(self, capsys):
        root, hook = logging.getLogger(), threading.excepthook
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = []
        self._said, self._capsys = "", capsys
        yield
        root.handlers[:] = handlers
        root.setLevel(level)
        threading.excepthook = hook
        logging.captureWarnings(False)

    def config(self, **service):
        return Config(file=Path("f"), server=ServerSettings(password="geheim-123"), service=ServiceSettings(**service))

    def said(self):
        self._said += self._capsys.readouterr().err
        return self._said

    def test_the_level_is_that_of_the_file_or_what_the_command_line_asks_for(self):
        set_up(self.config(log_level="warning"), Redactor())
        logging.getLogger("agent.x").info("not this")
        logging.getLogger("agent.x").warning("but this")
        set_up(self.config(log_level="warning"), Redactor(), level=logging.INFO)
        logging.getLogger("agent.x").info("and this")
        logging.getLogger("httpx").info("nor that")
        assert "not this" not in self.said()
        assert "nor that" not in self.said()
        assert "but this" in self.said()
        assert "and this" in self.said()

    def test_once_more_does_not_double_the_lines(self):
        for form in ("text", "json", "json"):
            set_up(self.config(log_format=form), Redactor())
        logging.getLogger("agent.x").info("once")
        (line,) = self.said().splitlines()
        assert json.loads(line)["message"] == "once"

    def test_secrets_of_all_libraries_are_hidden(self):
        set_up(self.config(), Redactor())
        logging.getLogger("some.library").error("password=geheim-123")
        assert f"password={HIDDEN}" in self.said()

    def test_warnings_and_threads_that_broke_off_are_logged(self):
        set_up(self.config(), Redactor())
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old-fashioned geheim-123", stacklevel=1)

        def work():
            raise OSError("within a thread: geheim-123")

        thread = threading.Thread(target=work, name="worker-7")
        thread.start()
        thread.join(5)
        assert "old-fashioned" in self.said()
        assert "the thread worker-7 broke off" in self.said()
        assert "OSError: within a thread" in self.said()
        assert "geheim-123" not in self.said()
