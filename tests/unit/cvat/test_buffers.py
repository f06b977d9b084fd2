"""Memory for decoded pictures."""

import io
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from agent.cvat.buffers import SMALL, STEP, Buffers
from agent.cvat.decode import decode_picture

HEIGHT, WIDTH = 480, 640
MEMORY = -(-HEIGHT * WIDTH * 3 // STEP) * STEP


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_nobody_looks_at_it():
    buffers = Buffers()
    first = buffers.empty(HEIGHT, WIDTH)
    assert (first.shape, first.dtype, first.flags.writeable) == ((HEIGHT, WIDTH, 3), np.uint8, True)
    second = buffers.empty(HEIGHT, WIDTH)
    assert not np.shares_memory(first, second)
    where = address(first)
    del first
    assert buffers.kept == MEMORY
    # One of nearly the same size finds room in it.
    third = buffers.empty(HEIGHT - 1, WIDTH)
    assert (address(third), buffers.kept) == (where, 0)


@pytest.mark.parametrize(
    "view",
    [lambda a: a[10:20, ::2], lambda a: a.transpose(2, 0, 1), memoryview, lambda a: np.asarray(a).view(np.int8)],
    ids=["slice", "transposed", "memoryview", "other type"],
)
def test_memory_is_not_used_again_while_anything_looks_at_it(view):
    buffers = Buffers()
    first = buffers.empty(HEIGHT, WIDTH)
    first[:] = 7
    seen = view(first)
    del first
    assert buffers.kept == 0
    buffers.empty(HEIGHT, WIDTH)[:] = 9
    assert (np.asarray(seen) == 7).all()
    del seen
    assert buffers.kept >= MEMORY


def test_a_tensor_holds_it_too():
    torch = pytest.importorskip("torch")
    buffers = Buffers()
    tensor = torch.from_numpy(buffers.empty(HEIGHT, WIDTH)).permute(2, 0, 1)
    tensor.fill_(7)
    buffers.empty(HEIGHT, WIDTH)[:] = 9
    assert bool((tensor == 7).all())


def test_no_more_is_kept_than_allowed():
    buffers = Buffers(keep=3 * MEMORY)
    held = [buffers.empty(HEIGHT, WIDTH) for _ in range(10)]
    del held
    assert buffers.kept == 3 * MEMORY
    # Sizes that nobody asks for any more make room for others.
    other = buffers.empty(2 * HEIGHT, WIDTH)
    del other
    assert buffers.kept <= 3 * MEMORY


def test_small_pictures_are_not_its_business():
    buffers = Buffers()
    side = int((SMALL / 3) ** 0.5) - 1
    buffers.empty(side, side)
    assert buffers.kept == 0


def test_memory_that_comes_back_while_one_looks_for_some():
    """The interpreter may collect cycles, and arrays in them, between any two steps of the search."""
    buffers = Buffers()
    held = [buffers.empty(HEIGHT + 40 * number, WIDTH) for number in range(20)]
    for _ in range(10):
        held.pop(0)

    def drop(frame, event, arg):
        if held and frame.f_code.co_name in ("_take", "<genexpr>"):
            held.pop()
        return drop

    sys.settrace(drop)
    try:
        found = buffers.empty(HEIGHT + 40 * 9, WIDTH)
    finally:
        sys.settrace(None)
    assert found.shape == (HEIGHT + 40 * 9, WIDTH, 3)
    assert held == []


def test_threads_get_memory_of_their_own():
    buffers, wrong = Buffers(), []

    def work(number):
        for turn in range(50):
            mine = buffers.empty(HEIGHT, WIDTH + turn % 3)
            mine[:] = number
            if not (mine == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_may_come_back_while_memory_is_taken():
    """The garbage collector ends arrays in the middle of anything."""
    buffers = Buffers()
    held = buffers.empty(HEIGHT, WIDTH)
    with buffers._lock:
        del held  # it must not wait for the lock
    assert buffers.kept == 0
    again = buffers.empty(HEIGHT, WIDTH)
    assert buffers.kept == 0
    del again
    assert buffers.kept == MEMORY, "one block, used twice"


def test_decoded_pictures_are_those_of_pillow_each_its_own():
    noise = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    files = []
    for number in range(6):
        out = io.BytesIO()
        Image.fromarray(noise).rotate(60 * number).resize((WIDTH, HEIGHT)).save(out, "JPEG", quality=70 + 4 * number)
        files.append(out.getvalue())
    decoded = [decode_picture(file) for file in files]
    for file, image in zip(files, decoded, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(file))))
