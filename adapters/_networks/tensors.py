"""A PyTorch program as a session: arrays in, arrays out, whatever the program packs its answer in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters._networks.session import Port

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TorchSession:
    """A callable of tensors. Its outputs are named by dictionaries, else output0, output1, …"""

    side_by_side = False

    def __init__(
        self, program: Any, inputs: Sequence[Port], metadata: Mapping[str, str], device: str, cores: int
    ) -> None:
        import torch

        self.inputs, self.metadata = inputs, metadata
        self.runs_on = f"PyTorch {torch.__version__}, {device}"
        self.on_processor = device == "cpu"
        self.outputs: Sequence[str] = ()
        """Known once it has run."""
        self._program, self._device, self._cores = program, device, cores
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        import torch

        tensors = [torch.from_numpy(feeds[port.name]).to(self._device) for port in self.inputs]
        with self._lock, torch.inference_mode():
            found = dict(_named(self._program(*tensors), "output"))
        answer = {name: tensor.float().cpu().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
                  for name, tensor in found.items()}  # fmt: skip
        self.outputs = list(answer)
        return answer


def _named(answer: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The tensors in an answer of tuples, lists and dictionaries, flat, each with a name."""
    import torch

    if isinstance(answer, torch.Tensor):
        yield name if name != "output" else "output0", answer
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from _named(value, str(key))
    elif isinstance(answer, list | tuple):
        for number, value in enumerate(answer):
            yield from _named(value, f"{name}{number}" if name == "output" else f"{name}.{number}")
