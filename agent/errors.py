"""The error map.

    SidecarError
      ConfigError               service.toml, a flag or an option is wrong
      ModelError                the model cannot be used
        ModelNotFound           there is no such scheme, file, repository or revision
        ModelLoadFailed         it is there, and it is unreadable or not what we can run
        BadPrediction           it ran, and failed or answered outside its contract
      RequestError              this request cannot be served
        BadRequest              what is asked for does not exist or makes no sense
        LabelMismatch           no label of the model has a place in the task
        RequestCancelled        whoever asked does not want it any more
      ServerError               CVAT said no, or said nothing
        ServerUnavailable       transport, 429 and 5xx, after the retries
        ServerRefused           any other 4xx, never retried

Messages say what, which, got and allowed, in one line for a person (of several mistakes, in one each). `exit_code` is
what the command line returns; `public` is what may be sent to the server, where other users read it: only texts that
we wrote ourselves.
"""

from __future__ import annotations


class SidecarError(Exception):
    """Anything that this program reports as an error of its own."""

    exit_code = 1

    @property
    def public(self) -> str:
        """The text that other users of the server may read."""
        return str(self)


class ConfigError(SidecarError):
    """A key, a flag or an option is wrong; nothing has been sent to a server yet. Of several mistakes, all are told."""

    exit_code = 2

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes

    @property
    def public(self) -> str:
        # The message names files and keys of whoever runs this.
        return "The service is not set up for this"


class ModelError(SidecarError):
    """The model cannot be used."""

    exit_code = 4

    @property
    def public(self) -> str:
        # The message can name files of this machine.
        return "The model could not be used"


class ModelNotFound(ModelError):
    """There is no such scheme, file, repository or revision."""


class ModelLoadFailed(ModelError):
    """The weights are there, but unreadable, damaged, or of a kind that cannot be run."""


class BadPrediction(ModelError):
    """The model failed on a frame, or answered outside its contract."""

    @property
    def public(self) -> str:
        return "The model failed on this request"


class RequestError(SidecarError):
    """This request cannot be served; another one may."""

    exit_code = 2


class BadRequest(RequestError):
    """What is asked for does not exist or makes no sense."""


class NothingToDo(BadRequest):
    """All is as it should be, or nothing is there that could be worked on; no error to whoever runs a command."""


class LabelMismatch(RequestError):
    """No label of the model has a place in the task, or an explicit mapping is impossible."""


class RequestCancelled(RequestError):
    """Whoever asked does not want it any more: stop, upload nothing more, fail nothing."""

    exit_code = 130


class ServerError(SidecarError):
    """CVAT said no, or said nothing."""

    exit_code = 3

    @property
    def public(self) -> str:
        return "The CVAT server could not be used"


class ServerUnavailable(ServerError):
    """Transport errors, 429 and 5xx that outlasted the retries.

    `maybe_done`: the server may have done the work although it did not say so. `may_go_on`: it may still be working on
    it, because the connection broke or a proxy gave up. `retry_after`: seconds that it asks to be left alone.
    `status`: the HTTP status of the last answer, None where there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        maybe_done: bool = True,
        may_go_on: bool = True,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done
        self.may_go_on = may_go_on
        self.retry_after = retry_after
        self.status = status


class ServerRefused(ServerError):
    """A 4xx other than 429: asking again would not help. `status` is the HTTP status.

    `by_api`: it was CVAT's API that said so; a proxy says 404, too, while the server behind it is away.
    """

    def __init__(self, message: str, *, status: int, by_api: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.by_api = by_api


def public_message(error: BaseException) -> str:
    """What other users of the server may read about an error; foreign exceptions can leak paths and hosts."""
    return error.public if isinstance(error, SidecarError) else "Internal error"
