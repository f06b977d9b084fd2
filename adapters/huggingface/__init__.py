"""Object detectors from the Hugging Face Hub or a folder: `hf:facebook/detr-resnet-50`, `hf:./my-model`."""

from __future__ import annotations

from pathlib import Path

from adapters._names import as_names, vocabulary
from adapters._torch import Precision
from adapters.huggingface.detection import HubDetector
from adapters.huggingface.source import NeedsTimm, fetch
from agent.contract import ConfigError, ModelNotFound

WITHOUT_TIMM = "no_timm"


def load(
    name: str,
    *,
    device: str,
    revision: str | None = None,
    token_env: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    precision: Precision = "auto",
    labels: str | list[str] | None = None,
    batch_size: int = 4,
) -> HubDetector:
    """The detector of a repository or a folder in transformers' form.

    `revision`: a branch, a tag or a commit; a commit makes runs repeatable. `token_env`: the NAME of an environment
    variable with an access token. `local_files_only`: what is cached will do, ask nobody. `trust_remote_code` and
    `allow_pickle` let the repository run code here. `labels` replaces the class names of its config.
    """
    owner = f"hf:{name}"
    if batch_size < 1:
        raise ConfigError(f"{owner}: batch_size: got {batch_size}, allowed: 1 or more")
    given = None
    if labels is not None:
        given = vocabulary(labels, owner) if isinstance(labels, str) else as_names(labels, f"{owner}: labels")

    def detector(wanted: str | None) -> HubDetector:
        source = fetch(
            name,
            revision=wanted,
            token_env=token_env,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
            with_code=trust_remote_code,
        )
        return HubDetector(
            source,
            device=device,
            precision=precision,
            names=given,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            batch_size=batch_size,
        )

    try:
        return detector(revision)
    except NeedsTimm as error:
        if revision is not None or Path(name).expanduser().exists():
            raise
        try:
            # DETR's own repositories keep the same weights, for a backbone of transformers, on a branch of this name.
            return detector(WITHOUT_TIMM)
        except ModelNotFound:
            raise error from None
