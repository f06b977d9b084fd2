"""How good `track` links beside plain ByteTrack and CVAT's own linking of neighbouring frames; what thinning saves.

    python benchmarks/tracks.py [--seeds 12]

The sequences are made up (things that cross, hide, leave and come back; a detector that misses, invents and trembles),
so that the truth is known. HOTA and IDF1 are those of the library `trackers`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.simplefilter("ignore")

from agent.tracks.keyframes import box_at, thin  # noqa: E402
from agent.tracks.link import Sighting, link  # noqa: E402
from tests.support.judging import judged, linked, neighbours, plain, sightings  # noqa: E402
from tests.support.sequences import sequence  # noqa: E402

SCENES = {
    "street": {},
    "crowd": {"things": 20, "hideouts": 3},
    "fast": {"speed": 10.0},
    "poor detector": {"miss": 0.25, "invented": 1.0, "tremble": 0.04},
}
WAYS = {"track": linked, "ByteTrack alone": plain, "neighbouring frames": neighbours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    args = parser.parse_args()
    for name, options in SCENES.items():
        found = [sequence(seed, **options) for seed in range(args.seeds)]
        print(f"{name}: {args.seeds} sequences of {found[0].frames} frames")
        for way, function in WAYS.items():
            figures = [judged(one, function(one)) for one in found]
            hota, idf1 = (statistics.mean(column) for column in zip(*figures, strict=True))
            print(f"  {way:<20}  HOTA {hota:.3f}  IDF1 {idf1:.3f}")
    thinning(args.seeds)
    speed()


def thinning(seeds: int) -> None:
    """Keyframes of slow motion, seen without trembling."""
    before = after = 0
    for seed in range(seeds):
        found = sequence(seed, speed=1.0, tremble=0.0, miss=0.0, invented=0.0)
        for label in ("person", "car"):
            for track in link(sightings(found, label)):
                keyframes = thin(track)
                before, after = before + len(track), after + len(keyframes)
                assert all(box_at(keyframes, sighting.frame) is not None for sighting in track)
    print(f"slow motion: {before / after:.1f} times fewer keyframes (goal >= 3)")


def speed() -> None:
    """A long sequence with many things."""
    found = sequence(0, frames=2000, things=60)
    seen = [Sighting(d.frame, d.box, d.score) for d in found.detections]
    began = time.perf_counter()
    tracks = link(seen)
    seconds = time.perf_counter() - began
    print(f"{len(seen)} rectangles on {found.frames} frames: {seconds:.1f} s, {len(tracks)} tracks")


if __name__ == "__main__":
    main()
