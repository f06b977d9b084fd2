"""Ultralytics' own .pt files, by the package that made them, where a person has installed it and trusts the file.

Such a file is a pickle: whoever opens it runs what its maker put into it. And the package is AGPL-3.0, which is why it
is no part of this program. It opens the file and writes a TorchScript archive; from there on all is as with any other.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from adapters._networks.files import WeightsFile, open_weights
from adapters._networks.in_torchscript import open_session as open_torchscript
from adapters._networks.options import Running
from adapters._networks.session import short
from adapters._networks.tensors import TorchSession
from agent.contract import ModelLoadFailed


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> TorchSession:
    """The network of a .pt file."""
    try:
        ultralytics: Any = importlib.import_module("ultralytics")
    except ImportError as error:
        raise ModelLoadFailed(
            f"{owner}: opening Ultralytics' pickles needs their package, which is AGPL-3.0 and no part of this program:"
            " pip install ultralytics; or have it exported elsewhere: yolo export model=x.pt format=onnx"
        ) from error
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    size = {"imgsz": [run.size[1], run.size[0]]} if run.size else {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.pt"
        shutil.copyfile(file.path, copy)  # it writes beside the file that it is given
        try:
            made = ultralytics.YOLO(str(copy)).export(format="torchscript", **size)
        except Exception as error:
            raise ModelLoadFailed(f"{owner}: ultralytics cannot open or export it: {short(error)}") from error
        return open_torchscript(open_weights(str(made)), owner, run, threads=threads)
