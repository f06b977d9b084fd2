"""What a click costs beyond the decoder, once the picture was embedded: through the queue and through the gateway.

    python benchmarks/clicks.py --encoder encoder.onnx --decoder decoder.onnx --pictures FOLDER

Whole processes over real HTTP, as in service.py. The decoder itself is timed in this process, in turns with the clicks.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from service import Bench, free_port, show_time
from stage import stand_in

from agent.contract import Frame, Prompts, Rectangle
from agent.models.loading import load_model

BOX = Rectangle(300, 200, 900, 760)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--decoder", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder with pictures to make the material from")
    parser.add_argument("--clicks", type=int, default=40)
    args = parser.parse_args()
    gateway = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        stand_in("--nuclio", f"http://127.0.0.1:{gateway}") as url,
    ):
        Clicks(Path(name), url, args, gateway).run_all()


class Clicks(Bench):
    """One task of a few pictures; each is clicked at many times."""

    def run_all(self) -> None:
        reference, decoder = f"local:{self.args.encoder.resolve()}", str(self.args.decoder.resolve())
        task = self.picture_task(4)
        table = (
            f'[[models]]\nid = "clicks"\nmodel = "{reference}"\ndevice = "cpu"\noptions = {{decoder = "{decoder}"}}\n'
        )
        decoding = self.decoder_itself(reference, decoder)
        print(f"  the decoder itself: median {np.median(decoding):.1f} ms")
        for door, how in (("queue", {}), ("gateway", {"gateway": "prefetch = false", "queue": False})):
            with self.service([table], **how) as functions:
                self.click(functions.get("clicks", "clicks"), task, 0)  # reads the weights
                first = [self.click(functions.get("clicks", "clicks"), task, frame) for frame in (1, 2, 3)]
                again = [self.click(functions.get("clicks", "clicks"), task, 3) for _ in range(self.args.clicks)]
            print(f"  {door}: the first click on a frame {np.median(first):.0f} ms, the next {np.median(again):.0f} ms")
            beyond = [ms - float(np.median(decoding)) for ms in again]
            show_time(
                f"clicks: through the {door}, on a frame that was clicked at before, beyond the decoder", beyond, 100
            )

    def click(self, function: str, task: str, frame: int) -> float:
        """Milliseconds until CVAT's editor has its mask."""
        corners = [[BOX.left, BOX.top], [BOX.right, BOX.bottom]]
        body = {"task": int(task), "frame": frame, "pos_points": [[600, 480]], "neg_points": [], "obj_bbox": corners}
        began = time.perf_counter()
        reply = self.http.post(f"/api/lambda/functions/{function}", content=json.dumps(body), headers=JSON)
        reply.raise_for_status()
        return (time.perf_counter() - began) * 1000

    def decoder_itself(self, reference: str, decoder: str) -> list[float]:
        """Milliseconds of the decoder alone, with the mask that it gives."""
        loaded = load_model(reference, device="cpu", options={"decoder": decoder})
        model: Any = loaded.model
        frame = Frame(0, "picture", np.asarray(Image.open(self.pictures(1)[0]).convert("RGB")))
        embedding, prompts = model.embed(frame), Prompts(positive=((600.0, 480.0),), box=BOX)
        times = []
        for _ in range(self.args.clicks):
            began = time.perf_counter()
            model.segment(embedding, prompts)
            times.append((time.perf_counter() - began) * 1000)
        loaded.close()
        return times


JSON = {"Content-Type": "application/json"}

if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
