"""The command line from outside: quick help, clear errors, exit codes."""

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "cvat_sdk", "numpy", "httpx", "PIL", "onnxruntime", "starlette", "pydantic")
HELPS = ([], ["annotate"], ["runs"], ["runs", "list"], ["runs", "show"], ["runs", "undo"], ["runs", "resume"],
         ["labels"], ["labels", "match"], ["models"], ["models", "show"], ["sandbox"], ["serve"], ["demo"],
         ["doctor"])  # fmt: skip


def sidecar(*args, **more):
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


@pytest.mark.parametrize("args", HELPS, ids=" ".join)
def test_help_loads_nothing_heavy(args):
    code = (
        "import sys\nfrom agent.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        f"    loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n    assert not loaded, loaded\n    sys.exit(end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage:")


@pytest.mark.parametrize("args", [[], ["annotate"], ["sandbox"]], ids=" ".join)
def test_help_is_quick(args):
    """In processor time, so that a busy machine does not fail it."""

    def seconds(*command):
        runs = []
        for _ in range(3):
            before = _children()
            subprocess.run([sys.executable, *command], capture_output=True, check=True, timeout=60)
            runs.append(_children() - before)
        return statistics.median(runs)

    assert seconds("-m", "agent.cli", *args, "--help") < 0.3


def _children():
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_version_is_told():
    done = sidecar("--version")
    assert done.stdout.startswith("cvat-sidecar 0."), done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["anotate"], "Did you mean 'annotate'?"),
        (["annotate", "--task", "1"], "Missing option '--model'"),
        (["annotate", "--model", "x:y"], "one of --task N, --job N, --project N"),
        (["annotate", "--model", "x:y", "--task", "1", "--job", "2"], "got --task 1, --job 2"),
        (["annotate", "--model", "x:y", "--task", "1", "--roi", "5,5,1,1"], "--roi '5,5,1,1'"),
        (["annotate", "--model", "x:y", "--task", "1", "--map", "car"], "--map 'car'"),
        (["annotate", "--model", "x:y", "--task", "1", "-p", "n=int:x"], "is no int"),
        (["annotate", "--model", "x:y", "--task", "1", "--threshold", "7"], "threshold"),
    ],
)
def test_wrong_use_is_exit_2_and_one_clear_line(args, said):
    done = sidecar(*args)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_exit_3(tmp_path):
    began = time.monotonic()
    done = sidecar(
        "annotate", "--model", "opencv:face", "--task", "1", "--server-host", "http://127.0.0.1:9", "--auth", "a:b",
        "--timeout", "2", "--ledger", str(tmp_path / "l.sqlite3"),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60
