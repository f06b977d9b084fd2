"""A model's files: brought from the Hub into its cache, found there, or lying in a folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.huggingface.progress import bar_class
from adapters.huggingface.weights import (
    PICKLED,
    SAFE,
    TEXTS,
    check_files,
    digest,
    drop_damaged,
    has_safetensors,
    licence,
)
from agent.contract import ConfigError, ModelError, ModelLoadFailed, ModelNotFound


class NeedsTimm(ModelLoadFailed):
    """The model's backbone comes from the package timm, which is not installed."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder with a model's files, and where they are from."""

    owner: str
    """The model reference, for messages."""
    folder: Path
    version: str
    """The commit of a repository; sha256:… of the files of a folder."""
    licence: str | None = None
    revision: str | None = None
    """The revision that was asked for."""


def fetch(
    name: str,
    *,
    revision: str | None,
    token_env: str | None,
    local_files_only: bool,
    allow_pickle: bool,
    with_code: bool,
) -> Source:
    """The files of a repository or folder; ModelNotFound or ModelLoadFailed says what is missing."""
    owner = f"hf:{name}"
    folder = Path(name).expanduser()
    if folder.is_file():
        hint = f"; did you mean local:{name}?" if folder.suffix == ".onnx" else ""
        raise ModelLoadFailed(f"{owner}: got a file, allowed: a repository, or a folder with a config.json{hint}")
    if folder.is_dir() or name.startswith((".", "/", "~")):
        return _from_folder(folder, owner, revision, allow_pickle)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ModelNotFound(f"{owner}: got no name of a repository, allowed: OWNER/NAME, or a folder")
    wanted = TEXTS + SAFE + (["*.py"] if with_code else [])
    token = _token(token_env, owner)
    with _hub_errors(owner, revision, token_env):
        folder = _snapshot(name, revision, token, local_files_only, wanted)
        if allow_pickle and not has_safetensors(folder):
            folder = _snapshot(name, folder.name, token, local_files_only, wanted + PICKLED)
    check_files(folder, owner, allow_pickle)
    return Source(owner, folder, folder.name, licence(folder), revision)


def _from_folder(folder: Path, owner: str, revision: str | None, allow_pickle: bool) -> Source:
    if not folder.is_dir():
        raise ModelNotFound(f"{owner}: there is no folder {folder}")
    if revision is not None:
        raise ConfigError(f"{owner}: revision: a folder has none, allowed: with a repository of the Hub only")
    check_files(folder, owner, allow_pickle)
    return Source(owner, folder, f"sha256:{digest(folder)}", licence(folder))


def _snapshot(name: str, revision: str | None, token: str | None, offline: bool, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # Clocks of file systems are coarse: a file that came a moment ago may look a moment older.
    began = time.time() - 2
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                token=token,
                local_files_only=offline,
                allow_patterns=wanted,
                tqdm_class=bar_class(f"hf:{name}"),
            )
        )
    except LocalEntryNotFoundError as error:
        # A cache filled by another program may lack files that we can do without: check_files decides.
        if partial := getattr(error, "snapshot_path", None):
            return Path(partial)
        raise
    if damaged := drop_damaged(folder, began):
        raise ModelLoadFailed(f"hf:{name}: {', '.join(damaged)} came damaged (another SHA-256); try again")
    return folder


@contextmanager
def _hub_errors(owner: str, revision: str | None, token_env: str | None) -> Iterator[None]:
    """The Hub's many errors as ours, with what to do about them."""
    from huggingface_hub import errors

    try:
        yield
    except ModelError:
        raise
    except errors.GatedRepoError as error:
        raise ModelLoadFailed(
            f"{owner}: is gated: accept its terms on its page, and give a token that may read it:"
            f" {_token_hint(token_env)}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"{owner}: the Hub knows no such repository, or it is private: {_token_hint(token_env)}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{owner}: revision: got {revision!r}, which the repository does not have") from error
    except errors.LocalEntryNotFoundError as error:
        kind = ModelNotFound if _offline(error.__cause__) else ModelLoadFailed
        raise kind(
            f"{owner}: it is not in the cache of this machine{_of(revision)}, and the Hub {_reason(error.__cause__)}"
        ) from error
    except errors.HFValidationError as error:
        raise ModelNotFound(f"{owner}: got no name of a repository, allowed: OWNER/NAME, or a folder") from error
    except errors.HfHubHTTPError as error:
        raise ModelLoadFailed(f"{owner}: the Hub {_reason(error)}") from error
    except Exception as error:  # transport, disk
        raise ModelLoadFailed(f"{owner}: could not be downloaded: {type(error).__name__}: {error}") from error


def _reason(error: BaseException | None) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        hint = {401: " (the token is not valid)", 403: " (the token may not read it)", 429: " (too many requests)"}
        return f"answered {status}{hint.get(status, '')}"
    if _offline(error):
        return "must not be asked (local_files_only or HF_HUB_OFFLINE)"
    return f"could not be reached ({type(error).__name__})"


def _offline(error: BaseException | None) -> bool:
    return error is None or "Offline" in type(error).__name__


def _of(revision: str | None) -> str:
    return f" (revision {revision!r})" if revision else ""


def _token(token_env: str | None, owner: str) -> str | None:
    if token_env is None:
        return None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", token_env) or token_env.startswith("hf_"):
        # The value may be a token that was pasted here: it must not appear in a message.
        raise ConfigError(f"{owner}: token_env: allowed: the name of an environment variable, not a token")
    if not (token := os.environ.get(token_env)):
        raise ConfigError(f"{owner}: token_env: the environment variable {token_env} is not set")
    return token


def _token_hint(token_env: str | None) -> str:
    if token_env:
        return f"the token in {token_env} may not read it"
    return "give the name of an environment variable with a token by token_env (or set HF_TOKEN)"
