"""Folders in transformers' form: small models of random weights, whole and broken."""

import gc
import json
import weakref

import numpy as np
import pytest

from adapters._torch import import_torch
from adapters.huggingface.opening import open_source
from adapters.huggingface.source import fetch
from agent.contract import Context, Frame
from agent.errors import ConfigError, ModelLoadFailed, ModelNotFound
from agent.models.loading import load_model

torch = import_torch()


def yolos(**more):
    from transformers import YolosConfig

    return YolosConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=[32, 48],
        patch_size=16, num_detection_tokens=5, **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A YOLOS of random weights with the classes cat and dog: it pads, has a softmax, and is tiny."""
    from transformers import YolosForObjectDetection, YolosImageProcessorPil

    folder = tmp_path_factory.mktemp("models") / "yolos"
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog"}
    config = yolos(id2label=names, label2id={name: number for number, name in names.items()})
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return folder


@pytest.fixture
def model(whole, tmp_path):
    """A copy to break."""
    import shutil

    return shutil.copytree(whole, tmp_path / "model")


def change(folder, file, **values):
    content = json.loads((folder / file).read_text())
    for key, value in values.items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value
    (folder / file).write_text(json.dumps(content))


def load(folder, **options):
    return load_model(f"hf:{folder}", device="cpu", options=options)


def test_a_folder(whole):
    loaded = load(whole)
    assert [(label.name, label.type) for label in loaded.labels] == [("cat", "rectangle"), ("dog", "rectangle")]
    assert loaded.version.startswith("sha256:")
    assert loaded.facts["architecture"] == "YolosForObjectDetection"
    assert loaded.facts["runs on"] == "cpu, float32"
    assert loaded.facts["format"] == "safetensors"
    assert (loaded.default_threshold, loaded.batch_size) == (0.5, 4)
    rng = np.random.default_rng(0)
    frames = [
        Frame(i, str(i), rng.integers(0, 255, (h, w, 3), np.uint8)) for i, (h, w) in enumerate([(40, 60), (90, 30)])
    ]
    together = loaded.model.detect(frames, Context())
    assert together == [loaded.model.detect([frame], Context())[0] for frame in frames]
    for frame, found in zip(frames, together, strict=True):
        assert found
        assert {d.label for d in found} <= {"cat", "dog"}
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
        assert all(0 <= d.shape.left < d.shape.right <= frame.width for d in found)


def test_a_folder_by_a_relative_path(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    assert load(f"./{whole.name}").version == load(whole.name).version == load(whole).version


def test_half_precision_gives_nearly_the_same(whole):
    frame = Frame(0, "f", np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    full, half = (load(whole, precision=p).model.detect([frame], Context())[0] for p in ("float32", "bfloat16"))
    assert len(full) == len(half)
    assert half[0].score == pytest.approx(full[0].score, abs=0.02)


def test_a_closed_model_lets_go_of_its_weights(whole):
    """Also where somebody still knows it: another model needs the room."""
    loaded = load(whole)
    weights = [one for one in gc.get_objects() if type(one) is torch.nn.Parameter and not one.is_meta]
    gone = [weakref.ref(weight) for weight in weights]
    del weights
    loaded.close()
    assert sum(weight() is None for weight in gone) >= 20
    loaded.close()


def test_what_a_model_takes_on_its_device_is_what_its_weights_are(whole):
    """For GPUs, whose memory the growth of the process does not tell."""
    access = {"revision": None, "token_env": None, "local_files_only": True, "allow_pickle": False, "with_code": False}
    source = fetch(str(whole), **access)
    given = {"device": "cpu", "batch_size": 1, "trust_remote_code": False, "allow_pickle": False}
    whole_size = (whole / "model.safetensors").stat().st_size
    for precision, share in (("float32", 1.0), ("float16", 0.5)):
        opened = open_source(source, precision=precision, **given)
        assert opened.memory_bytes == 0
        opened.model("AutoModelForObjectDetection")
        assert 0.8 * whole_size * share < opened.memory_bytes <= whole_size * share
        opened.close()
        assert opened.memory_bytes == 0


def test_names_by_option_and_unused_ones(whole):
    loaded = load(whole, labels=["N/A", "fox"])
    assert [label.name for label in loaded.labels] == ["fox"]
    with pytest.raises(ConfigError, match="labels: got 1 names, the model has 2 classes"):
        load(whole, labels=["fox"])


def test_a_config_without_names_is_flagged(model):
    change(model, "config.json", id2label=None, label2id=None)
    loaded = load(model)
    assert [label.name for label in loaded.labels] == ["LABEL_0", "LABEL_1"]
    assert "no id2label" in loaded.facts["labels from"]


def test_a_model_for_another_purpose_is_named_for_what_it_is(tmp_path):
    from transformers import ViTConfig, ViTForMaskedImageModeling

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForMaskedImageModeling(ViTConfig(**small, image_size=32)).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadFailed, match=r"got ViTForMaskedImageModeling, .*allowed: …ForObjectDetection, "):
        load(tmp_path)


def test_a_folder_of_a_detectors_backbone_only(model):
    change(model, "config.json", architectures=["YolosModel"])
    with pytest.raises(ModelLoadFailed, match="got YolosModel"):
        load(model)


def test_weights_that_do_not_fit(model):
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    gone = next(name for name in weights if "class_labels" in name)
    del weights[gone]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadFailed, match="its weights lack 1 of the tensors"):
        load(model)


def test_truncated_weights(model):
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelLoadFailed, match=r"model\.safetensors is damaged: it has \d+ bytes, its head says \d+"):
        load(model)


def test_weights_that_were_not_pulled(model):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    (model / "model.safetensors").write_text(pointer)
    with pytest.raises(ModelLoadFailed, match="is a pointer of Git LFS, not the weights: run `git lfs pull`"):
        load(model)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x05\0\0\0\0\0\0\0hello", b"\x02\0\0\0\0\0\0\0[]"])
def test_weights_that_are_none(model, content):
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelLoadFailed, match=r"model\.safetensors is no safetensors file"):
        load(model)


def test_weights_in_several_files(model):
    from safetensors.torch import load_file, save_file

    weights = sorted(load_file(model / "model.safetensors").items())
    (model / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, part in zip(names, (weights[::2], weights[1::2]), strict=True):
        save_file(dict(part), model / name, metadata={"format": "pt"})
    places = {key: name for name, part in zip(names, (weights[::2], weights[1::2]), strict=True) for key, _ in part}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(model).kind == "detector"
    (model / names[1]).unlink()
    with pytest.raises(ModelLoadFailed, match=r"lacks model-00002-of-00002\.safetensors, one of the 2 files"):
        load(model)
    (model / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelLoadFailed, match="is no index of weights"):
        load(model)


def test_weights_of_another_size(model):
    change(model, "config.json", hidden_size=64)
    with pytest.raises(ModelLoadFailed, match=r"do not fit its config: [\w.]+: got \(.*32.*\), allowed: \(.*64"):
        load(model)


@pytest.mark.parametrize(
    ("task", "auto"),
    [
        ("classification", "AutoModelForImageClassification"),
        ("semantic-segmentation", "AutoModelForSemanticSegmentation"),
        ("segmentation", "AutoModelForInstanceSegmentation"),
        ("text-reading", "AutoModelForTextRecognition"),
        ("pose", "AutoModelForPoseEstimation"),
    ],
)
def test_a_model_forced_to_do_what_it_cannot(whole, task, auto):
    with pytest.raises(ModelLoadFailed, match=rf"hf:.*: got YolosForObjectDetection, allowed: what {auto} loads \("):
        load(whole, task=task)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\ntags:\n- x\nlicense: other\nlicense_name: 'sam-license'\n---\n", "sam-license"),
        ("---\ntags: [x]\n---\nlicense: no\n", None),
        ("no front matter", None),
    ],
)
def test_the_licence_is_that_of_the_card(model, card, licence):
    (model / "README.md").write_text(card)
    assert load(model).facts.get("licence") == licence


def test_a_log_hears_how_a_download_goes_on(caplog, monkeypatch):
    import logging

    from adapters.huggingface import progress

    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level(logging.INFO)
    bar = progress.bar_class("hf:some/model")(total=3_000_000, unit="B", desc="bytes", name="ignored")
    bar.update(1_500_000)
    bar.update(1_500_000)
    bar.close()
    files = progress.bar_class("hf:some/model")(total=2, desc="files")
    files.update(2)
    files.close()
    assert caplog.messages == [
        "hf:some/model: downloading 2 MB of 3 MB",
        "hf:some/model: downloading 3 MB of 3 MB",
        "hf:some/model: downloaded 3 MB of 3 MB",
    ]


def test_a_vocabulary_that_uses_a_name_twice(tmp_path):
    from tests.support import hub_models

    hub_models.vit(tmp_path, **hub_models.named("crane", "dog", "crane"))
    loaded = load(tmp_path, top_k=3)
    assert [label.name for label in loaded.labels] == ["crane", "dog"]
    frame = Frame(0, "f", np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    found = loaded.model.detect([frame], Context())[0]
    assert sorted(one.label for one in found) == ["crane", "dog"]


def test_a_reader_reads_what_a_detector_finds(tmp_path):
    from tests.support import hub_models

    detector, reader = tmp_path / "detector", tmp_path / "reader"
    for place, make in ((detector, hub_models.pp_ocr_detector), (reader, hub_models.pp_ocr_reader)):
        place.mkdir()
        make(place)
    loaded = load(detector, reader=f"hf:{reader}", label="line", attribute="says")
    (label,) = loaded.labels
    assert (label.name, [attribute.name for attribute in label.attributes]) == ("line", ["says"])
    assert loaded.facts["read by"] == str(reader)
    (found,) = loaded.model.detect(hub_models.pictures((60, 90)), Context())
    assert found
    assert all(set(one.attributes) == {"says"} for one in found)
    with pytest.raises(ConfigError, match="reader: got 'local:x', allowed: hf:OWNER/NAME, or a folder"):
        load(detector, reader="local:x")
    with pytest.raises(ModelLoadFailed):
        load(detector, reader=str(detector))


def test_files_that_are_missing(model, tmp_path):
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(ModelLoadFailed, match=r"no preprocessor_config\.json"):
        load(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelLoadFailed, match=r"has no model\.safetensors; pickled weights"):
        load(model)
    (model / "config.json").unlink()
    with pytest.raises(ModelLoadFailed, match=r"has no config\.json \(found: "):
        load(model)
    with pytest.raises(ModelNotFound, match="there is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "file.onnx").touch()
    with pytest.raises(ModelLoadFailed, match=r"got a file, allowed: a repository, or a folder.*did you mean local:"):
        load(tmp_path / "file.onnx")


def test_pickled_weights_need_a_word(model):
    from safetensors.torch import load_file

    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelLoadFailed, match=r"pickled weights only.*allow_pickle = true"):
        load(model)
    assert load(model, allow_pickle=True).facts["format"] == "PyTorch pickle"


def test_code_of_the_repository_needs_a_word(model):
    change(
        model, "config.json", model_type="mine",
        auto_map={"AutoConfig": "mine.Config", "AutoModelForObjectDetection": "mine.Model"},
    )  # fmt: skip
    (model / "mine.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ModelLoadFailed, match="trust_remote_code = true"):
        load(model)


def test_a_backbone_of_timm_is_named(model):
    from importlib.util import find_spec

    if find_spec("timm") is not None:
        pytest.skip("needs an environment without timm")
    detr = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], "backbone": "resnet18"}
    (model / "config.json").write_text(
        json.dumps({**detr, "use_timm_backbone": True, "use_pretrained_backbone": False})
    )
    with pytest.raises(ModelLoadFailed, match=r"needs the package timm .*revision = \"no_timm\""):
        load(model)


def test_a_config_that_is_no_json(model):
    (model / "config.json").write_text("{")
    with pytest.raises(ModelLoadFailed, match="transformers cannot load it"):
        load(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revision": "main"}, "revision: a folder has none"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"precision": "float8"}, "option 'precision': got 'float8', allowed: 'auto' | "),
    ],
)
def test_wrong_options(whole, options, message):
    with pytest.raises(ConfigError, match=message):
        load(whole, **options)


def test_devices(whole):
    with pytest.raises(ConfigError, match="device: got 'tpu', allowed: auto, cpu"):
        load_model(f"hf:{whole}", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelLoadFailed, match="finds no CUDA here"):
            load_model(f"hf:{whole}", device="cuda")
