"""A repository opened: its config, where and how precisely it runs, its weights, its processors, all errors ours."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters._torch import Precision, choose_device, choose_precision
from adapters.huggingface.source import NeedsTimm, Source
from agent.contract import BadPrediction, ConfigError, ModelError, ModelLoadFailed


@dataclass(frozen=True, slots=True)
class Opened:
    """What every task needs to load its model."""

    source: Source
    config: Any
    device: str
    dtype: Any
    batch_size: int
    trust_remote_code: bool
    allow_pickle: bool
    networks: list[Any] = field(default_factory=list)
    """What `model` has given."""

    @property
    def owner(self) -> str:
        """The model reference, for messages."""
        return self.source.owner

    @property
    def _given(self) -> dict[str, Any]:
        return {"local_files_only": True, "trust_remote_code": self.trust_remote_code}

    def model(self, kind: str, rename: Mapping[str, str] | None = None) -> Any:
        """The model of a class of transformers (`AutoModelFor…` or its own), on its device, ready to run.

        `rename`: patterns in the names of tensors, and what they become, where transformers forgets one.
        """
        import transformers

        with quiet(), load_errors(self.owner):
            of_kind = getattr(transformers, kind)
            self._check_kind(of_kind)
            model, report = of_kind.from_pretrained(
                self.source.folder,
                config=self.config,
                dtype=self.dtype,
                use_safetensors=None if self.allow_pickle else True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # and told below: transformers would say where to look, not what is wrong
                **({"key_mapping": dict(rename)} if rename else {}),
                **self._given,
            )
            self._check_weights(type(model).__name__, report)
            self.networks.append(model.to(self.device).eval())
            return model

    @property
    def memory_bytes(self) -> int:
        """What the weights take on the device; those that two networks share count once."""
        tensors = (tensor for network in self.networks for tensor in (*network.parameters(), *network.buffers()))
        return sum({id(tensor): int(tensor.nbytes) for tensor in tensors}.values())

    def close(self) -> None:
        """Lets go of the weights at once, whoever still knows the model; a GPU's memory goes back to all programs."""
        import torch

        for network in self.networks:
            network.to("meta")
        self.networks.clear()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _check_kind(self, of_kind: Any) -> None:
        """ModelLoadFailed where an Auto class has nothing for the config."""
        mapping = getattr(of_kind, "_model_mapping", None)
        brings_code = of_kind.__name__ in (getattr(self.config, "auto_map", None) or {})
        if mapping is None or brings_code or type(self.config) in mapping:
            return
        got = ", ".join(getattr(self.config, "architectures", None) or []) or self.config.model_type
        known = ", ".join(sorted(one.model_type for one in mapping)[:8])
        raise ModelLoadFailed(f"{self.owner}: got {got}, allowed: what {of_kind.__name__} loads ({known}, …)")

    def _check_weights(self, kind: str, report: dict[str, Any]) -> None:
        """ModelLoadFailed where transformers has filled gaps with random numbers."""
        if missing := sorted(key for key in report["missing_keys"] if "num_batches_tracked" not in key):
            raise ModelLoadFailed(
                f"{self.owner}: its weights lack {len(missing)} of the tensors that {kind} needs, e.g. {missing[0]}"
            )
        if unfit := sorted(report["mismatched_keys"]):
            name, got, allowed = unfit[0]
            raise ModelLoadFailed(
                f"{self.owner}: its weights do not fit its config: {name}: got {tuple(got)}, allowed: {tuple(allowed)}"
            )

    def image_processor(self, **changes: Any) -> Any:
        """transformers' own preparation of pictures, on PIL: the backend that needs no torchvision."""
        from transformers import AutoImageProcessor

        kind = str(self.preparation().get("image_processor_type", "its image processor"))
        with quiet(), load_errors(self.owner):
            try:
                return AutoImageProcessor.from_pretrained(self.source.folder, backend="pil", **changes, **self._given)
            except (ImportError, ValueError) as error:
                if "torchvision" in str(error).lower():
                    raise NeedsTorchvision(
                        f"{self.owner}: {kind} prepares pictures with torchvision only, which is not used here"
                    ) from error
                raise

    def tokenizer(self) -> Any:
        """The tokenizer of a model that reads or writes words."""
        from transformers import AutoTokenizer

        with quiet(), load_errors(self.owner):
            return AutoTokenizer.from_pretrained(self.source.folder, **self._given)

    def preparation(self) -> dict[str, Any]:
        """What preprocessor_config.json says, or processor_config.json, where newer repositories keep it."""
        folder = self.source.folder
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (path := folder / name).exists():
                with load_errors(self.owner):
                    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                    if isinstance(inner := content.get("image_processor", content), dict) and inner:
                        return inner
        raise ModelLoadFailed(
            f"{self.owner}: has no preprocessor_config.json, which says how to prepare pictures; a repository of the"
            " same architecture has one to copy"
        )

    def placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A processor's tensors where the model is, floats in its precision; what is no tensor as it is."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            if hasattr(value, "is_floating_point")
            else value
            for name, value in inputs.items()
        }

    def check(self, **answers: Any) -> None:
        """BadPrediction where the model answered with something that is not a number."""
        for name, tensor in answers.items():
            if tensor.isnan().any():
                half = str(self.dtype) != "torch.float32"
                hint = '; precision = "float32" may help' if half else ""
                raise BadPrediction(f"{self.owner}: the model answered NaN ({name}){hint}")

    def facts(self, model: Any, task: str, size: str, **more: str) -> dict[str, str]:
        """What `models show` prints."""
        source = self.source
        facts = {
            "source": source.owner.removeprefix("hf:"),
            "version": source.version,
            "task": task,
            "architecture": type(model).__name__,
            "input size": size,
            "format": "safetensors" if list(source.folder.glob("*.safetensors")) else "PyTorch pickle",
            **{name.replace("_", " "): text for name, text in more.items()},
            "runs on": f"{self.device}, {str(self.dtype).removeprefix('torch.')}",
        }
        if source.revision:
            facts["revision"] = source.revision
        if source.licence:
            facts["licence"] = source.licence
        return facts


class NeedsTorchvision(ModelLoadFailed):
    """transformers prepares this model's pictures with torchvision only."""


def open_source(
    source: Source,
    *,
    device: str,
    precision: Precision,
    batch_size: int,
    trust_remote_code: bool,
    allow_pickle: bool,
) -> Opened:
    """The repository with its config read; ModelLoadFailed where transformers cannot make sense of it."""
    device = choose_device(device, source.owner)
    with quiet(), load_errors(source.owner):
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=trust_remote_code)
    dtype = choose_precision(precision, device, getattr(config, "dtype", None))
    return Opened(source, config, device, dtype, batch_size, trust_remote_code, allow_pickle)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bars, advice and deprecation notes, which are not for our users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield


@contextmanager
def load_errors(owner: str) -> Iterator[None]:
    """Whatever transformers raises, as ModelLoadFailed."""
    try:
        yield
    except (ModelError, ConfigError):
        raise
    except ImportError as error:
        if "timm" in str(error):
            raise NeedsTimm(
                f"{owner}: its backbone needs the package timm (and with it torchvision); some repositories have a"
                ' branch without it, e.g. revision = "no_timm"'
            ) from error
        raise ModelLoadFailed(f"{owner}: needs a package that is not installed: {_short(error)}") from error
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelLoadFailed(
                f"{owner}: brings its own Python code, which runs only with trust_remote_code = true"
            ) from error
        raise ModelLoadFailed(f"{owner}: transformers cannot load it: {_short(error)}") from error


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
