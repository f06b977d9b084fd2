import platform
import subprocess
import sys

import pytest

from agent.models.memory import HEAPS, give_large_blocks_back

HAS_GLIBC = platform.libc_ver()[0] == "glibc"
THREADS = """
import ctypes, threading
from agent.models.memory import share_few_heaps
{first}
barrier = threading.Barrier(8)
def hold():
    held = bytearray(50_000)
    barrier.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
ctypes.CDLL(None).malloc_stats()
"""


def test_large_blocks_are_given_back_where_there_is_glibc():
    assert give_large_blocks_back() is (platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(not HAS_GLIBC, reason="heaps are glibc's")
def test_threads_share_few_heaps():
    def heaps(first):
        code = THREADS.format(first=first)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stderr.count("Arena ")

    assert heaps("assert share_few_heaps()") <= HEAPS < heaps("")
