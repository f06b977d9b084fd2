import platform

from agent.memory import give_large_blocks_back


def test_it_is_said_whether_it_could_be_done():
    assert give_large_blocks_back() is (platform.libc_ver()[0] == "glibc")
