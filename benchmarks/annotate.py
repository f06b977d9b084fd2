"""What `annotate` costs beside its alternatives, as ratios measured side by side in one run.

    python benchmarks/annotate.py --model local:model.onnx --pictures FOLDER [--only speed pipeline memory video]

Every figure comes from whole processes against a CVAT stand-in in a process of its own, in turns (A B A B …), and is
the median of the turns. The stand-in shares this machine's processors, which costs both sides the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from stage import PASSWORD, USER, Stage, show, stand_in, timed

PARTS = ("speed", "pipeline", "memory", "video")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an ONNX detector as local:PATH (for the part `speed`)")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder with pictures to make the material from")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, stand_in() as url:
        bench = Bench(Path(name), url, args)
        for part in args.only:
            getattr(bench, part)()


class Bench(Stage):
    """The parts, with the tasks that they share."""

    def __init__(self, folder: Path, url: str, args: argparse.Namespace) -> None:
        super().__init__(folder, url, args.pictures)
        self.args = args

    # ------------------------------------------------------------------ parts

    def speed(self) -> None:
        """Frames/s against `cvat-cli task auto-annotate` with the same model."""
        if not self.args.model:
            raise SystemExit("--model is needed for the part `speed`")
        task = self.picture_task(self.args.frames, labels_of=self.args.model)
        ours = [*self.sidecar("annotate"), "--task", task, "--model", self.args.model, "--threshold", "0.3"]
        theirs = [
            "cvat-cli", *self.server, "task", "auto-annotate", task, "--function-module", "adapters.as_function",
            "-p", f"model=str:{self.args.model}", "--conf-threshold", "0.3", "--allow-unmatched-labels",
        ]  # fmt: skip
        self.versus("speed: cvat-cli auto-annotate / cvat-sidecar annotate, whole processes", theirs, ours, task, 1.5)

    def pipeline(self) -> None:
        """The share of the run in which a model that sleeps 20 ms a frame is busy."""
        task, efficiency = self.picture_task(self.args.frames), []
        for turn in range(self.args.turns + 1):
            self.clear(task)
            seconds = self.annotate(task, "sleep:0.02")[0]["seconds"]["whole run"]
            note = "" if turn else " (not counted: it warms the server's cache of chunks)"
            print(f"  {seconds:.2f} s, ideally {self.args.frames * 0.02:.2f} s{note}")
            efficiency += [self.args.frames * 0.02 / seconds] if turn else []
        show("pipeline: ideal time / time of a run, model sleeps 20 ms a frame", efficiency, 0.95)

    def memory(self) -> None:
        """Peak memory for ten times as many frames, with a model slow enough that frames wait for it."""
        ratios = []
        small, large = self.picture_task(self.args.frames), self.picture_task(10 * self.args.frames)
        for _ in range(self.args.turns):
            few, many = (self.annotate(task, "sleep:0.01")[1] for task in (small, large))
            print(f"  peak {few / 1024:.0f} MiB, {many / 1024:.0f} MiB for ten times as many frames")
            ratios.append(many / few)
        show("memory: peak of ten times as many frames / peak", ratios, 1.1, at_most=True)

    def video(self) -> None:
        """Frames of a 720p video task by chunk against frame by frame."""
        from agent.cvat.frames import ChunkFrames, fetch_frame
        from agent.cvat.session import open_session
        from agent.cvat.work import find_work
        from agent.options import Target
        from agent.settings.server import ServerSettings

        task, ratios = self.video_task(frames=self.args.frames), []
        with open_session(ServerSettings(host=self.url, user=USER, password=PASSWORD)) as session:
            (work,) = find_work(session, Target("task", int(task)))
            wanted = [(job, frame) for job in work.jobs for frame in job.frames]
            for _ in range(self.args.turns):
                with ChunkFrames(session) as source:
                    chunked = timed(lambda source=source: sum(1 for _ in source.read(wanted))) / len(wanted)
                some = wanted[:: max(1, len(wanted) // 20)]
                single = timed(lambda some=some: [fetch_frame(session, job, frame) for job, frame in some]) / len(some)
                print(f"  {1 / chunked:.0f} frames/s by chunk, {1 / single:.1f} frame by frame")
                ratios.append(single / chunked)
        show("video: single frames / chunks, 1280x720", ratios, 8)

    # ------------------------------------------------------------------ steps

    def annotate(self, task: str, model: str) -> tuple[dict, int]:
        """(report, peak memory in KiB) of a run with the sleeping model."""
        report = self.folder / "report.json"
        command = [*self.sidecar("annotate"), "--task", task, "--model", model, "--report", str(report)]
        _, peak = self.run(command)
        return json.loads(report.read_text()), peak

    def versus(self, title: str, theirs: list[str], ours: list[str], task: str, goal: float) -> None:
        ratios = []
        for turn in range(self.args.turns + 1):
            seconds = []
            for command in (theirs, ours):
                self.clear(task)
                seconds.append(self.run(command)[0])
            if turn:  # the first turn warms caches on both sides
                a, b = (self.args.frames / s for s in seconds)
                print(f"  {a:.1f} frames/s and {b:.1f} frames/s")
                ratios.append(seconds[0] / seconds[1])
        show(title, ratios, goal)


if __name__ == "__main__":
    main()
