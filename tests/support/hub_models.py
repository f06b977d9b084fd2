"""Small models of random weights, made by transformers itself and saved as a repository has them.

Each function fills a folder; seeds are fixed, so that a folder is the same in every run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = ("cat", "dog", "car")
SMALL = {"shortest_edge": 64, "longest_edge": 96}
SQUARE = {"height": 64, "width": 64}
LOUD = 0.15
"""The least standard deviation of weights."""


def named(*names: str) -> dict[str, Any]:
    """id2label and label2id."""
    names = names or CLASSES
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def save(folder: Path, kind: str, config: Any, **processor: Any) -> None:
    """A model of a class with a config, and the preparation of its pictures."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    with torch.no_grad():  # fresh weights are so small that all pictures look alike
        for weight in model.parameters():
            if weight.ndim > 1 and weight.numel() > 1 and float(weight.std()) < LOUD:
                weight.normal_(float(weight.mean()), LOUD)
    model.save_pretrained(folder)
    if processor:
        normal = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
        (folder / "preprocessor_config.json").write_text(json.dumps({**normal, **processor}))


def clip_words(folder: Path) -> int:
    """A CLIP tokenizer that spells words letter by letter; gives the size of its vocabulary."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"})
    )
    return len(words)


def bert_words(folder: Path, words: tuple[str, ...]) -> int:
    """A BERT tokenizer with the special tokens where Grounding DINO expects them."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    known = [special.get(number, f"[unused{number}]") for number in range(1030)] + list(words)
    (folder / "vocab.txt").write_text("\n".join(known))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512})
    )
    return len(known)


def swin() -> Any:
    from transformers import SwinConfig

    return SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def yolos(folder: Path) -> None:
    from transformers import YolosConfig

    config = YolosConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=[64, 96],
        patch_size=16, num_detection_tokens=6, **named(),
    )  # fmt: skip
    save(folder, "YolosForObjectDetection", config, image_processor_type="YolosImageProcessor", size=SMALL)


def rf_detr(folder: Path, kind: str = "RfDetrForObjectDetection") -> None:
    from transformers import RfDetrConfig

    backbone = {
        "model_type": "rf_detr_dinov2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16, "num_windows": 1, "out_indices": [1, 2], "mlp_ratio": 2,
    }  # fmt: skip
    config = RfDetrConfig(
        backbone_config=backbone, d_model=32, decoder_layers=2, decoder_ffn_dim=32, num_queries=6,
        decoder_self_attention_heads=2, decoder_cross_attention_heads=2, decoder_n_points=2, group_detr=1, **named(),
    )  # fmt: skip
    save(folder, kind, config, image_processor_type="RfDetrImageProcessor", size=SQUARE, resample=2)


def detr_segmentation(folder: Path) -> None:
    from transformers import DetrConfig, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=64,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=6, **named(),
    )  # fmt: skip
    save(folder, "DetrForSegmentation", config, image_processor_type="DetrImageProcessor", size=SMALL)


def mask2former(folder: Path) -> None:
    from transformers import Mask2FormerConfig

    config = Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=8, **named(),
    )  # fmt: skip
    save(
        folder, "Mask2FormerForUniversalSegmentation", config, image_processor_type="Mask2FormerImageProcessor",
        size=SMALL, size_divisor=32,
    )  # fmt: skip


def oneformer(folder: Path) -> None:
    from transformers import OneFormerConfig

    words = clip_words(folder)
    config = OneFormerConfig(
        backbone_config=swin(), ignore_value=255, num_queries=8, hidden_dim=32, conv_dim=32, mask_dim=32,
        encoder_feedforward_dim=16, encoder_layers=2, decoder_layers=2, num_attention_heads=2, dim_feedforward=16,
        text_encoder_width=32, text_encoder_num_layers=1, text_encoder_context_length=16,
        text_encoder_vocab_size=words, task_seq_len=16, max_seq_len=16, query_dec_layers=1, common_stride=4,
        is_training=False, **named(),
    )  # fmt: skip
    save(
        folder, "OneFormerForUniversalSegmentation", config, image_processor_type="OneFormerImageProcessor",
        size=SMALL, class_info_file="ade20k_panoptic.json", repo_path="shi-labs/oneformer_demo",
    )  # fmt: skip


def maskformer(folder: Path) -> None:
    from transformers import DetrConfig, MaskFormerConfig

    decoder = DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=8, num_labels=len(CLASSES),
    )  # fmt: skip
    config = MaskFormerConfig(
        backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, num_queries=8,
        **named(),
    )  # fmt: skip
    save(
        folder, "MaskFormerForInstanceSegmentation", config, image_processor_type="MaskFormerImageProcessor",
        size=SMALL, size_divisor=32,
    )  # fmt: skip


def eomt(folder: Path, *, tiles: bool = False) -> None:
    from transformers import EomtConfig

    config = EomtConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, num_blocks=1,
        num_upscale_blocks=1, num_queries=6, mlp_ratio=2, num_register_tokens=1, **named(),
    )  # fmt: skip
    size = {"shortest_edge": 64, "longest_edge": None if tiles else 64}
    save(
        folder, "EomtForUniversalSegmentation", config, image_processor_type="EomtImageProcessor", size=size,
        do_split_image=tiles, do_pad=not tiles,
    )  # fmt: skip


def segformer(folder: Path) -> None:
    from transformers import SegformerConfig

    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], mlp_ratios=[1, 1, 1, 1],
        decoder_hidden_size=16, **named(),
    )  # fmt: skip
    save(
        folder, "SegformerForSemanticSegmentation", config, image_processor_type="SegformerImageProcessor", size=SQUARE
    )


def upernet(folder: Path) -> None:
    from transformers import UperNetConfig

    config = UperNetConfig(
        backbone_config=swin(), hidden_size=16, use_auxiliary_head=False, pool_scales=[1, 2], **named()
    )
    save(folder, "UperNetForSemanticSegmentation", config, image_processor_type="SegformerImageProcessor", size=SQUARE)


def mobilevit(folder: Path) -> None:
    """Its processor cuts a square out of the middle, unless it is told not to."""
    from transformers import MobileViTConfig

    config = MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_attention_heads=2,
        aspp_out_channels=16, atrous_rates=[1, 2, 3], **named(),
    )  # fmt: skip
    save(
        folder, "MobileViTForSemanticSegmentation", config, image_processor_type="MobileViTImageProcessor",
        size={"shortest_edge": 64}, do_center_crop=True, crop_size=SQUARE,
    )  # fmt: skip


def vit(folder: Path, **more: Any) -> None:
    from transformers import ViTConfig

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        **{**named(), **more},
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    save(folder, "ViTForImageClassification", config, image_processor_type="ViTImageProcessor", size=size)


def grounding_dino(folder: Path) -> None:
    from transformers import BertConfig, GroundingDinoConfig, SwinConfig

    words = bert_words(folder, ("cat", "dog", "car", "red"))
    text = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=words
    )
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, num_queries=12, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        max_text_len=16,
    )  # fmt: skip
    save(
        folder, "GroundingDinoForObjectDetection", config, image_processor_type="GroundingDinoImageProcessor",
        size=SMALL,
    )  # fmt: skip


def owl(folder: Path, version: str = "Owlv2") -> None:
    import transformers

    words = clip_words(folder)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = getattr(transformers, f"{version}Config")(
        text_config={**small, "vocab_size": words, "max_position_embeddings": 16, "eos_token_id": words - 1},
        vision_config={**small, "image_size": 64, "patch_size": 16}, projection_dim=32,
    )  # fmt: skip
    save(folder, f"{version}ForObjectDetection", config, image_processor_type=f"{version}ImageProcessor", size=SQUARE)


def omdet(folder: Path) -> None:
    from transformers import CLIPTextConfig, OmDetTurboConfig, SwinConfig

    words = clip_words(folder)
    text = CLIPTextConfig(
        hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=words,
        max_position_embeddings=32, projection_dim=64, eos_token_id=words - 1,
    )  # fmt: skip
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    config = OmDetTurboConfig(
        backbone_config=backbone, text_config=text, use_timm_backbone=False, image_size=64, num_queries=8,
        text_projection_in_dim=64, text_projection_out_dim=64, task_encoder_hidden_dim=32, class_embed_dim=64,
        encoder_hidden_dim=32, vision_features_channels=[32, 32, 32], encoder_in_channels=[16, 32, 64],
        encoder_attention_heads=2, encoder_dim_feedforward=32, decoder_hidden_dim=32, decoder_num_heads=2,
        decoder_num_layers=1, decoder_dim_feedforward=32,
        apply_layernorm_after_vision_backbone=False,
    )  # fmt: skip
    save(folder, "OmDetTurboForObjectDetection", config, image_processor_type="DetrImageProcessor", size=SQUARE)


Builder = Callable[[Path], None]
