"""Other people's code, called: what goes wrong in it is told with the line that it comes from."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.contract import BadPrediction, ModelError

T = TypeVar("T")


def called(owner: str, work: Callable[[], T]) -> T:
    """What `work` gives. BadPrediction where it fails."""
    try:
        return work()
    except ModelError:
        raise
    except Exception as error:
        raise BadPrediction(f"{owner}: {where(error)}") from error


def where(error: BaseException) -> str:
    """The error with the line of the function that it comes from."""
    frames = list(traceback.extract_tb(error.__traceback__))
    foreign = re.compile(r"site-packages|lib/python|/adapters/")
    theirs = [frame for frame in frames if not foreign.search(frame.filename)]
    frames = theirs or frames
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        place = f" ({Path(error.filename or '').name}, line {error.lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
