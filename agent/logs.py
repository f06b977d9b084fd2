"""Log lines of the service, as text or as JSON, with the request they belong to and without any secret."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
import traceback
import urllib.parse
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from agent.log_fields import current_fields
from agent.settings.tables import Config

log = logging.getLogger(__name__)

HIDDEN = "***"
NOISY = ("httpx", "httpcore", "urllib3", "cvat_sdk", "uvicorn", "asyncio", "apscheduler", "PIL", "matplotlib")
"""What they say below a warning is of no use to whoever runs the service."""

# The names by which programs keep secrets in their environment.
_SECRET_VARIABLE = re.compile(r"(?i)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIALS?)$")
# What a header, an address or a form would carry, whoever made it: a login's token is made by the server.
_CREDENTIALS = re.compile(r"(?i)\b(bearer|token|basic|sessionid=|csrftoken=)(\s+|)(?=\S*\d)[A-Za-z0-9._~+/=-]{16,}")
_USER_INFO = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")
# Ways to write another character: they end in a letter or digit, and yet what follows is a word of its own.
_ESCAPES = (
    r"%[0-9A-Fa-f]{2}", r"%25[0-9A-Fa-f]{2}", r"\\[abfnrtv0]", r"\\x[0-9A-Fa-f]{2}", r"\\u[0-9A-Fa-f]{4}",
    r"\\U[0-9A-Fa-f]{8}", r"\x1b\[\dm", r"\x1b\[\d\dm", r"\x1b\[\d;\d\dm",
)  # fmt: skip
LONG = 16
"""No word holds a secret of so many characters by chance, so that it is hidden wherever it stands."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Redactor:
    """Takes known secrets, and what looks like credentials, out of texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._pattern: re.Pattern[str] | None = None
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """Hides these from now on, however they are spelled: in an address, in JSON, in a header.

        A short one is hidden where it is a word of its own: the password `secret` must not spoil `secret_env`.
        """
        forms = {form: _whole(form, secret) for secret in secrets if secret for form in _spellings(secret)}
        # The longest first: one secret may be a part of another.
        words = "|".join(forms[form] for form in sorted(forms, key=len, reverse=True))
        self._pattern = re.compile(words) if words else None

    def __call__(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        text = _USER_INFO.sub(HIDDEN, text)
        return _CREDENTIALS.sub(lambda match: f"{match[1]}{match[2]}{HIDDEN}", text)


def known_secrets(config: Config) -> set[str]:
    """The secrets that a configuration names, and those that the environment holds by their usual names."""
    server = config.server
    found = {server.password, server.token}
    if server.user and server.password:
        found.add(f"{server.user}:{server.password}")
    names = {config.service.secret_env, config.watch.webhook_secret_env}
    names |= {config.gateway.secret_env} if config.gateway else set()
    for model in config.models:
        names |= {str(value) for key, value in model.options.items() if key.endswith("_env")}
    found |= {os.environ.get(name) for name in names if name}
    # A short value under such a name is a word that may stand anywhere.
    found |= {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name) and len(value) >= 8}
    return {secret for secret in found if secret}


class Lines(logging.Formatter):
    """`2026-11-21T12:00:00.123+00:00 INFO agent.pool.pool: text [request=ab12 model=yolo]`, tracebacks below it."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self.redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in current_fields().items())
        text = f"{_time(record)} {record.levelname} {record.name}: {self.message(record)}"
        text += f" [{_one_line(self.redact(fields))}]" if fields else ""
        if below := self.below(record):
            # Indented, so that no text of a server or a model can pass for a line of ours.
            text += "".join(f"\n    {_one_line(line)}" for line in below.splitlines())
        return text

    def message(self, record: logging.LogRecord) -> str:
        try:
            return _one_line(self.redact(record.getMessage().rstrip()))
        except Exception as error:  # a wrong call of the logger must not hide what it was about
            return _one_line(self.redact(f"{record.msg!r} (arguments that do not fit: {error})"))

    def below(self, record: logging.LogRecord) -> str:
        """The traceback and the stack, where there are some."""
        parts = [_traceback(record.exc_info), record.stack_info or ""]
        return self.redact("\n".join(part for part in parts if part).rstrip())


class JsonLines(Lines):
    """One JSON object a line: time, level, logger, message, request, run, model, exception."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **{name: self.redact(value) for name, value in current_fields().items()},
        }
        if below := self.below(record):
            values["exception"] = below
        return json.dumps(values, ensure_ascii=False)


def set_up(config: Config, redact: Redactor, *, level: int | None = None) -> None:
    """Sends the log of the whole process to standard error; called again, it takes the new settings.

    `level` is what the command line asks for, where that is more than service.toml does.
    """
    redact.know(known_secrets(config))
    handler = logging.StreamHandler()
    handler.setFormatter((JsonLines if config.service.log_format == "json" else Lines)(redact))
    wanted = logging.getLevelNamesMapping()[config.service.log_level.upper()]
    wanted = wanted if level is None else min(wanted, level)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(wanted)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.NOTSET if wanted <= logging.DEBUG and level else logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_error


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread else "?"
    trace = (args.exc_type, args.exc_value, args.exc_traceback)
    log.error("the thread %s broke off", name, exc_info=trace)


def _spellings(secret: str) -> set[str]:
    quoted = {urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    dumped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, *quoted, *dumped, encoded, encoded.rstrip("=")}


def _whole(form: str, secret: str) -> str:
    """A pattern for a spelling of a secret, which is no part of a longer word, unless it is too long for that."""
    text = re.escape(form)
    if len(secret) >= LONG:
        return text
    pattern = text
    if _is_word(secret[0]):
        # The text comes before the look back: it is found fast, and seldom.
        pattern += rf"(?:(?<!\w{text})|{'|'.join(f'(?<={escape}{text})' for escape in _ESCAPES)})"
    return pattern + (r"(?!\w)" if _is_word(secret[-1]) else "")


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None


def _traceback(error: Any) -> str:
    if not error:
        return ""
    found: tuple[type[BaseException], BaseException, TracebackType | None] = error
    return "".join(traceback.format_exception(*found)) if found[0] is not None else ""


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\n", "\\n"))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
