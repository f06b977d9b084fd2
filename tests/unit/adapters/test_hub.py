"""Repositories of the Hub: versions, the cache, tokens, and every way in which a Hub says no.

The Hub is a loopback server; huggingface_hub reads its environment at import, so each question is a process.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hub import Hub, Repository

ROOT = Path(__file__).resolve().parents[3]
ASK = """
import json, sys, warnings
warnings.simplefilter("error")
from agent.errors import SidecarError
calls, how = json.load(sys.stdin)
for name, options in calls:
    try:
        if how == "fetch":
            from adapters.huggingface.source import fetch
            given = dict(revision=None, token_env=None, local_files_only=False, allow_pickle=False, with_code=False)
            source = fetch(name, **{**given, **options})
            answer = ["ok", source.version, source.licence, sorted(p.name for p in source.folder.iterdir())]
        else:
            import numpy as np
            from agent.contract import Context, Frame
            from agent.models.loading import load_model
            loaded = load_model(f"hf:{name}", device="cpu", options=options)
            frame = Frame(0, "f", np.zeros((40, 60, 3), np.uint8))
            found = loaded.model.detect([frame], Context())[0] if loaded.kind == "detector" else []
            answer = ["ok", loaded.version, dict(loaded.facts), len(found)]
    except SidecarError as error:
        answer = [type(error).__name__, str(error)]
    print(json.dumps(answer))
"""


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "detr"}')
    (folder / "preprocessor_config.json").write_text("{}")
    head = b'{"weights": {"dtype": "U8", "shape": [200000], "data_offsets": [0, 200000]}}'
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"\0" * 200_000)
    (folder / "pytorch_model.bin").write_bytes(b"never fetched unless asked for")
    (folder / "modeling.py").write_text("raise SystemExit('remote code ran')")
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    with Hub({"some/model": Repository(folder, ("main", "v1"))}) as running:
        yield running


@pytest.fixture
def ask(hub, tmp_path):
    """Asks in a process of its own, with a cache of its own; the answers, one for each call."""

    def process(*calls, how="fetch", cache="cache", **environment):
        given = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        given |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(ROOT),
            "no_proxy": "127.0.0.1",
            **environment,
        }
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            input=json.dumps([calls, how]),
            env=given,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "%|" not in done.stderr, "a progress bar in a log"
        return [json.loads(line) for line in done.stdout.splitlines()]

    return process


def test_a_repository_comes_with_its_commit_and_licence_and_nothing_needless(ask, hub):
    commit = hub.repositories["some/model"].commit
    files = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    main, tag, pinned = ask(
        ["some/model", {}], ["some/model", {"revision": "v1"}], ["some/model", {"revision": commit}]
    )
    assert main == tag == pinned == ["ok", commit, "apache-2.0", files]


def test_code_comes_only_when_asked_for_and_pickles_only_where_there_is_nothing_better(ask, hub):
    (answer,) = ask(["some/model", {"allow_pickle": True, "with_code": True}])
    assert "modeling.py" in answer[3]
    assert "pytorch_model.bin" not in answer[3]
    (hub.repositories["some/model"].folder / "model.safetensors").unlink()
    refused, allowed = ask(["some/model", {}], ["some/model", {"allow_pickle": True}], cache="another")
    assert refused[0] == "ModelLoadFailed"
    assert "allow_pickle = true" in refused[1]
    assert "pytorch_model.bin" in allowed[3]
    (offline,) = ask(["some/model", {"allow_pickle": True}], cache="another", HF_HUB_OFFLINE="1")
    assert offline == allowed


def test_the_cache_serves_without_a_hub(ask, hub):
    (first,) = ask(["some/model", {}])
    (only_local,) = ask(["some/model", {"local_files_only": True}])
    (offline,) = ask(["some/model", {}], HF_HUB_OFFLINE="1")
    hub.fail(503, times=99)
    (broken,) = ask(["some/model", {}])
    hub.close()
    (down,) = ask(["some/model", {}])
    assert first == only_local == offline == broken == down


def test_a_repository_whose_backbone_needs_timm_is_had_from_its_branch_without(ask, hub, tmp_path):
    """As facebook/detr-resnet-50 is made: main needs timm, the branch no_timm has the same weights without it."""
    torch = pytest.importorskip("torch")
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessorPil, ResNetConfig

    with_timm, without = tmp_path / "main", tmp_path / "no_timm"
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    torch.manual_seed(0)
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=5, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(without)
    DetrImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(without)
    shutil.copytree(without, with_timm)
    old = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], "backbone": "resnet18"}
    old |= {"use_timm_backbone": True, "use_pretrained_backbone": False}
    (with_timm / "config.json").write_text(json.dumps(old))
    branch = Repository(without, ("no_timm",))
    hub.repositories["some/detr"] = Repository(with_timm, branches={"no_timm": branch})
    hub.repositories["other/detr"] = Repository(with_timm)
    answer, alone, pinned = ask(["some/detr", {}], ["other/detr", {}], ["some/detr", {"revision": "main"}], how="load")
    assert answer[:2] == ["ok", branch.commit]
    assert answer[2]["revision"] == "no_timm"
    for other in (alone, pinned):
        assert "needs the package timm" in other[1], "what was asked for is not silently replaced"


def test_what_is_not_there_is_named(ask, hub):
    unknown, revision, offline, name = ask(
        ["some/other", {}],
        ["some/model", {"revision": "v9"}],
        ["some/other", {"local_files_only": True}],
        ["some model", {}],
    )
    assert unknown[0] == "ModelNotFound"
    assert "knows no such repository, or it is private" in unknown[1]
    assert revision == ["ModelNotFound", "hf:some/model: revision: got 'v9', which the repository does not have"]
    assert offline[0] == "ModelNotFound"
    assert "not in the cache" in offline[1]
    assert "local_files_only" in offline[1]
    assert name[0] == "ModelNotFound"
    assert "OWNER/NAME" in name[1]


def test_gates_and_tokens(ask, hub):
    hub.repositories["some/model"].token = "hf_right"
    calls = [["some/model", {}], ["some/model", {"token_env": "WRONG"}], ["some/model", {"token_env": "UNSET"}]]
    calls += [["some/model", {"token_env": "hf_pasted"}], ["some/model", {"token_env": "RIGHT"}]]
    gated, wrong, unset, pasted, right = ask(*calls, WRONG="hf_wrong", RIGHT="hf_right")
    assert gated[0] == "ModelLoadFailed"
    assert "is gated" in gated[1]
    assert "token_env" in gated[1]
    assert "the token in WRONG may not read it" in wrong[1]
    assert unset == ["ConfigError", "hf:some/model: token_env: the environment variable UNSET is not set"]
    assert pasted[0] == "ConfigError"
    assert "hf_pasted" not in pasted[1]
    assert right[0] == "ok"
    assert ("GET", f"/some/model/resolve/{right[1]}/config.json", "Bearer hf_right") in hub.requests


@pytest.mark.parametrize(("status", "message"), [(429, "429 (too many requests)"), (503, "answered 503")])
def test_a_hub_that_has_trouble(ask, hub, status, message):
    hub.fail(status, where="/api/models", times=99)
    (answer,) = ask(["some/model", {}])
    assert answer[0] == "ModelLoadFailed"
    assert message in answer[1]


def test_a_hub_that_is_down(ask, hub):
    hub.close()
    (answer,) = ask(["some/model", {}])
    assert answer[0] == "ModelLoadFailed"
    assert "could not be reached" in answer[1]


def test_a_connection_that_breaks_is_resumed(ask, hub):
    hub.fail(0, where="model.safetensors", times=2)  # HEAD has no body to cut: the second is the GET
    (answer,) = ask(["some/model", {}])
    assert answer[0] == "ok"


def test_a_download_that_never_ends(ask, hub):
    """Nothing half is left to be taken for the whole."""
    hub.fail(0, where="model.safetensors", times=99)
    (half,) = ask(["some/model", {}])
    assert half[0] == "ModelLoadFailed"
    assert "hf:some/model: could not be downloaded: " in half[1]
    (cached,) = ask(["some/model", {"local_files_only": True}])
    assert cached[0] in ("ModelLoadFailed", "ModelNotFound")
    hub.faults.clear()
    (whole,) = ask(["some/model", {}])
    assert whole[0] == "ok"


def test_a_download_that_came_damaged_is_not_kept(ask, hub):
    """The right length, another content: found by its SHA-256, deleted, and fetched again the next time."""
    hub.fail(200, where="resolve", times=99)
    (first,) = ask(["some/model", {}])
    assert first[0] == "ModelLoadFailed"
    assert "model.safetensors came damaged (another SHA-256); try again" in first[1]
    hub.faults.clear()
    (second,) = ask(["some/model", {}])
    assert second[0] == "ok"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answered 401 (the token is not valid)"),
        (403, "answered 403 (the token may not read it)"),
        (404, "answered 404"),
    ],
)
def test_a_hub_that_refuses(ask, hub, status, message):
    hub.fail(status, where="/api/models", times=99)
    (answer,) = ask(["some/model", {}])
    assert answer[0] == "ModelLoadFailed"
    assert message in answer[1]


def test_a_mirror_without_the_weights(ask, hub):
    """Half a repository: what is missing is named, not what broke."""
    (hub.repositories["some/model"].folder / "model.safetensors").unlink()
    (answer,) = ask(["some/model", {}])
    assert answer == [
        "ModelLoadFailed",
        "hf:some/model: has no model.safetensors; pickled weights (pytorch_model.bin) are read with"
        " allow_pickle = true",
    ]


def test_every_kind_of_model_comes_with_all_its_files(ask, hub, tmp_path):
    """Tokenizers, vocabularies and generation settings as well as weights."""
    pytest.importorskip("torch")
    from tests.support import hub_models

    kinds = {
        "vit": {},
        "mask2former": {"segments": "panoptic"},
        "oneformer": {},
        "grounding_dino": {"labels": ["cat"]},
        "owl": {"labels": ["cat"]},
        "trocr": {"max_length": 4},
        "pp_ocr_detector": {"reader": "hf:team/pp_ocr_reader"},
        "pp_ocr_reader": {},
        "sam2": {"task": "tracking"},
        "sam3": {"texts": True},
    }
    for kind in kinds:
        folder = tmp_path / kind
        folder.mkdir()
        getattr(hub_models, kind)(folder)
        hub.repositories[f"team/{kind}"] = Repository(folder)
    hub.repositories["team/grounding_dino"].token = "hf_right"
    calls = [[f"team/{kind}", {"token_env": "RIGHT", **options}] for kind, options in kinds.items()]
    answers = ask(*calls, how="load", RIGHT="hf_right")
    for kind, answer in zip(kinds, answers, strict=True):
        assert answer[:2] == ["ok", hub.repositories[f"team/{kind}"].commit], answer
        assert answer[2]["source"] == f"team/{kind}"


@pytest.mark.timeout(180)
def test_a_real_model_through_the_hub(ask, hub, assets):
    hub.repositories["team/deim"] = Repository(assets / "weights" / "deimv2_atto_coco_hf")
    (answer,) = ask(["team/deim", {"labels": "coco-80"}], how="load")
    assert answer[:2] == ["ok", hub.repositories["team/deim"].commit]
    assert answer[2]["architecture"] == "Deimv2ForObjectDetection"
    assert answer[2]["source"] == "team/deim"
    assert answer[3] > 0
