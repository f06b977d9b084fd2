import gc
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest

from agent.contract import Detection, Frame, Label, Polygon, Prompts, Rectangle
from agent.errors import BadPrediction, ModelError
from agent.interaction import Embeddings, content_digest, interact, size_of
from agent.models.host import Host
from agent.models.loading import LoadedModel, ModelReference
from agent.pool.pool import HostedModel
from agent.settings.tables import ModelSettings

KIB = 1024
CLICK = Prompts(positive=((2.0, 3.0),))


def frame(seed=0, size=(8, 6)):
    rng = np.random.default_rng(seed)
    return Frame(0, "f", rng.integers(0, 255, (size[1], size[0], 3), np.uint8))


class Interactor:
    """Embeds by the mean; answers with what it is told to."""

    def __init__(self, labels=(), answer=None):
        self.labels, self.embedded, self.asked = tuple(labels), [], []
        self.answer = answer or (lambda embedding, prompts: [Detection("thing", Rectangle(0, 0, 2, 2), 0.5)])

    def embed(self, frame):
        self.embedded.append(content_digest(frame))
        return frame.image.mean(axis=(0, 1))

    def segment(self, embedding, prompts):
        self.asked.append((embedding, prompts))
        return self.answer(embedding, prompts)


@pytest.fixture
def hosted():
    """Puts an interactor behind a host."""
    opened = []

    def put(model, id_="sam", load=1, version="v1"):
        loaded = LoadedModel(ModelReference("x", "y"), model, "interactor", tuple(model.labels), version)
        host = Host(model)
        opened.append(host)
        return HostedModel(ModelSettings(id_, "x:y"), loaded, host, load)

    yield put
    for host in opened:
        host.close(5)


class TestEmbeddings:
    def test_a_picture_is_embedded_once(self):
        kept, made = Embeddings(10 * KIB), []

        def embed():
            made.append(np.zeros(KIB, np.uint8))
            return made[-1]

        first = kept.get(("m", 1), embed)
        assert kept.get(("m", 1), embed) is first
        assert kept.get(("m", 2), embed) is not first
        assert len(made) == 2
        assert kept.bytes >= 2 * KIB

    def test_those_used_longest_ago_go_first(self):
        kept, made = Embeddings(4 * KIB), []

        def ask(key):
            kept.get(("m", key), lambda: (made.append(key), np.zeros(KIB, np.uint8))[1])

        for key in "abcabdac":
            ask(key)
        assert "".join(made) == "abcdc", "b and c were not asked for as lately as a"
        assert kept.bytes <= kept.limit

    def test_one_that_is_too_large_is_given_and_not_kept(self):
        kept, large = Embeddings(KIB), np.zeros(2 * KIB, np.uint8)
        kept.get(("m", 1), lambda: np.zeros(100, np.uint8))
        assert kept.get(("m", 2), lambda: large) is large
        assert kept.get(("m", 1), lambda: pytest.fail("it was dropped for the large one")) is not None

    def test_even_empty_ones_do_not_grow_without_end(self):
        kept = Embeddings(KIB)
        for key in range(1000):
            kept.get(("m", key), lambda: None)
        assert kept.bytes <= KIB

    def test_what_failed_is_not_kept(self):
        kept = Embeddings(KIB)
        with pytest.raises(OSError):
            kept.get(("m", 1), lambda: (_ for _ in ()).throw(OSError()))
        assert kept.get(("m", 1), lambda: 7) == 7

    def test_a_model_that_went_takes_its_own_along(self):
        kept = Embeddings(10 * KIB)
        for model in ("a", "b"):
            for key in range(3):
                kept.get((model, key), lambda: np.zeros(100, np.uint8))
        before = kept.bytes
        kept.forget("a")
        assert kept.bytes == before / 2
        kept.forget("a"), kept.forget("nobody")
        kept.get(("b", 0), lambda: pytest.fail("b's are still there"))
        kept.forget("b")
        assert kept.bytes == 0

    def test_memory_is_really_given_back(self):
        class Thing:
            nbytes = 100

        kept = Embeddings(KIB)
        gone = weakref.ref(kept.get(("m", 1), Thing))
        gc.collect()
        assert gone() is not None
        kept.forget("m")
        gc.collect()
        assert gone() is None

    def test_a_smaller_limit_holds_at_once(self):
        kept = Embeddings(10 * KIB)
        for key in range(8):
            kept.get(("m", key), lambda: np.zeros(KIB, np.uint8))
        kept.resize(2 * KIB + 600)
        assert kept.bytes <= kept.limit == 2 * KIB + 600
        kept.get(("m", 7), lambda: pytest.fail("the latest stay"))

    def test_many_threads(self):
        kept = Embeddings(20 * KIB)

        def work(seed):
            rng = np.random.default_rng(seed)
            for _ in range(300):
                key = int(rng.integers(40))
                assert kept.get((key % 3, key), lambda key=key: np.full(KIB, key, np.uint8))[0] == key
                if rng.random() < 0.05:
                    kept.forget(key % 3)

        with ThreadPoolExecutor(6) as threads:
            for future in [threads.submit(work, seed) for seed in range(6)]:
                future.result(30)
        assert 0 <= kept.bytes <= kept.limit
        for model in range(3):
            kept.forget(model)
        assert kept.bytes == 0


@dataclass(slots=True)
class Slotted:
    first: object
    second: object


class TestSizeOf:
    def test_finds_arrays_wherever_they_are(self):
        a = np.zeros((4, 4), np.float32)
        for value in (
            a, [a], (a,), {"x": a}, {"x": [{"y": a}]}, types.SimpleNamespace(x=a), Slotted(a, None),
            [Slotted(types.SimpleNamespace(x=[a]), 3)], {1: {2}, "a": a}, memoryview(a),
        ):  # fmt: skip
            assert a.nbytes <= size_of(value) <= a.nbytes + 20

    def test_counts_what_is_there_twice_once(self):
        a = np.zeros(100, np.uint8)
        assert size_of([a, a, {"x": a}]) == 100

    def test_a_value_that_holds_itself_ends(self):
        one = {"a": np.zeros(10, np.uint8)}
        one["self"] = one
        assert size_of(one) == 10

    def test_tensors(self):
        torch = pytest.importorskip("torch")
        assert size_of({"e": torch.zeros(3, 4)}) == 48

    @pytest.mark.parametrize(("value", "size"), [(b"abc", 3), ("äb", 3), (None, 0), (3, 0), (bytearray(5), 5)])
    def test_plain_values(self, value, size):
        assert size_of(value) == size


class TestInteract:
    def test_a_second_click_embeds_nothing(self, hosted):
        model, kept = Interactor(), Embeddings(KIB)
        put = hosted(model)
        for prompts in (CLICK, Prompts(positive=((1, 1), (2, 2)))):
            (found,) = interact(put, kept, frame(), prompts).result(5)
            assert found.label == "thing"
        assert len(model.embedded) == 1
        assert [prompts for _, prompts in model.asked][1].positive == ((1, 1), (2, 2))
        interact(put, kept, frame(1), CLICK).result(5)
        assert len(model.embedded) == 2, "another picture"
        interact(put, kept, replace(frame(), index=7, name="other"), CLICK).result(5)
        assert len(model.embedded) == 2, "the same picture under another name"

    def test_who_clicks_at_once_shares_an_embedding(self, hosted):
        model, kept = Interactor(), Embeddings(KIB)
        put = hosted(model)
        futures = [interact(put, kept, frame(), CLICK) for _ in range(8)]
        assert all(future.result(5) for future in futures)
        assert len(model.embedded) == 1

    @pytest.mark.parametrize("other", [{"load": 2}, {"id_": "sam2"}, {"version": "v2"}], ids=str)
    def test_another_model_does_not_see_the_embedding(self, hosted, other):
        kept = Embeddings(KIB)
        first, second = Interactor(), Interactor()
        interact(hosted(first), kept, frame(), CLICK).result(5)
        interact(hosted(second, **other), kept, frame(), CLICK).result(5)
        assert len(second.embedded) == 1

    def test_a_known_digest_saves_reading_the_pixels(self, hosted):
        model, kept = Interactor(), Embeddings(KIB)
        put = hosted(model)
        interact(put, kept, frame(), CLICK, digest="abc").result(5)
        interact(put, kept, frame(1), CLICK, digest="abc").result(5)
        assert len(model.embedded) == 1

    def test_goes_before_batches_that_wait(self, hosted):
        order, gate = [], threading.Event()
        put = hosted(Interactor(answer=lambda *_: order.append("click") or []))
        first = put.host.call(lambda: gate.wait(10), 1)
        batches = [put.host.call(lambda: order.append("batch"), 1) for _ in range(3)]
        click = interact(put, Embeddings(KIB), frame(), CLICK)
        gate.set()
        for future in (first, *batches, click):
            future.result(5)
        assert order == ["click", "batch", "batch", "batch"]

    @pytest.mark.parametrize(
        "answer",
        [
            lambda *_: 3,
            lambda *_: None,
            lambda *_: ["text"],
            lambda *_: [Detection("thing", Rectangle(0, 0, 1, 1), 1.5)],
            lambda *_: [Detection("thing", Rectangle(0, 0, 1, 1), float("nan"))],
            lambda *_: [Detection("thing", Rectangle(0, 0, 1, 1), "high")],
            lambda *_: [Detection("thing", "shape", 0.5)],
            lambda *_: 1 / 0,
        ],
    )
    @pytest.mark.parametrize("labels", [(), (Label("thing", "rectangle"),)], ids=["no labels", "labels"])
    def test_what_is_outside_the_contract_is_a_bad_prediction(self, hosted, answer, labels):
        with pytest.raises(BadPrediction):
            interact(hosted(Interactor(labels, answer)), Embeddings(KIB), frame(), CLICK).result(5)

    def test_labels_are_held_to_those_of_the_model(self, hosted):
        def other(*_):
            return [Detection("cat", Polygon((0, 0, 1, 1, 2, 0)))]

        (found,) = interact(hosted(Interactor((), other)), Embeddings(KIB), frame(), CLICK).result(5)
        assert found.label == "cat"
        with pytest.raises(BadPrediction, match="cat"):
            interact(hosted(Interactor([Label("dog")], other)), Embeddings(KIB), frame(), CLICK).result(5)

    def test_an_error_of_the_models_own_passes(self, hosted):
        def refuse(*_):
            raise ModelError("out of memory")

        with pytest.raises(ModelError, match="out of memory"):
            interact(hosted(Interactor((), refuse)), Embeddings(KIB), frame(), CLICK).result(5)

    def test_a_closed_host_cancels(self, hosted):
        put = hosted(Interactor())
        put.host.close(5)
        assert interact(put, Embeddings(KIB), frame(), CLICK).cancelled()


def test_the_digest_is_of_the_pixels():
    image = frame().image
    same = Frame(5, "x", np.asfortranarray(image))
    assert content_digest(frame()) == content_digest(same)
    assert content_digest(frame()) != content_digest(frame(1))
    turned = Frame(0, "f", image.reshape(image.shape[1], image.shape[0], 3))
    assert content_digest(frame()) != content_digest(turned), "the same bytes in another form"
