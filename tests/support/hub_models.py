"""Small models of random weights, made by transformers itself and saved as a repository has them.

Each function fills a folder; seeds are fixed, so that a folder is the same in every run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from agent.contract import Frame

CLASSES = ("cat", "dog", "car")
SMALL = {"shortest_edge": 64, "longest_edge": 96}
SQUARE = {"height": 64, "width": 64}
LOUD = 0.15
"""The least standard deviation of weights."""

SURE = ("pred_obj_score_head.proj_out.bias", "presence_head.layer3.bias")
"""What makes random networks believe that an object is there."""


def named(*names: str) -> dict[str, Any]:
    """id2label and label2id."""
    names = names or CLASSES
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def save(folder: Path, kind: str, config: Any, **processor: Any) -> None:
    """A model of a class with a config, and the preparation of its pictures."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    with torch.no_grad():  # fresh weights are so small that all pictures look alike
        for weight in model.parameters():
            if weight.ndim > 1 and weight.numel() > 1 and float(weight.std()) < LOUD:
                weight.normal_(float(weight.mean()), LOUD)
        for name, weight in model.named_parameters():
            if any(name.endswith(sure) for sure in SURE):
                weight.fill_(20)
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
        size={"shortest_edge": 128, "longest_edge": 192},
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


def vitpose(folder: Path, *, experts: int = 1) -> None:
    from transformers import VitPoseBackboneConfig, VitPoseConfig

    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        mlp_ratio=2, num_experts=experts, part_features=16 if experts > 1 else 0, out_indices=[2],
    )  # fmt: skip
    config = VitPoseConfig(backbone_config=backbone, scale_factor=4, use_simple_decoder=True, num_labels=17)
    save(
        folder, "VitPoseForPoseEstimation", config, image_processor_type="VitPoseImageProcessor",
        size={"height": 64, "width": 48},
    )  # fmt: skip


def trocr(folder: Path) -> None:
    import transformers

    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(chr(code) for code in range(33, 127)), "\u0120"]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "RobertaTokenizer", "model_max_length": 64})
    )
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = transformers.ViTConfig(hidden_size=32, image_size=32, patch_size=8, **small)
    decoder = transformers.TrOCRConfig(
        vocab_size=len(letters), d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32,
        max_position_embeddings=64, is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=32,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 1, 2
    size = {"height": 32, "width": 32}
    save(folder, "VisionEncoderDecoderModel", config, image_processor_type="ViTImageProcessor", size=size)


def pp_ocr_reader(folder: Path, version: int = 5) -> None:
    import transformers

    blocks = [
        [[3, 16, 32, 1, False]], [[3, 32, 32, [2, 1], False]], [[3, 32, 32, [2, 1], False]],
        [[3, 32, 64, [1, 2], False]], [[3, 64, 64, [2, 1], False]],
    ]  # fmt: skip
    backbone = transformers.PPLCNetV3Config(
        block_configs=blocks, scale=1.0, divisor=16, out_features=["stage2", "stage3", "stage4", "stage5"]
    )
    characters = ["blank", *"abcdefgh "]
    config = transformers.PPOCRV5MobileRecConfig(
        backbone_config=backbone, hidden_size=16, depth=1, num_attention_heads=2, head_out_channels=len(characters)
    )
    processor = "PPOCRV5ServerRecImageProcessor" if version == 5 else "PPOCRV6SmallRecImageProcessor"
    save(
        folder, "PPOCRV5MobileRecForTextRecognition", config, image_processor_type=processor,
        size={"height": 48, "width": 320}, pad_size={"height": 48, "width": 320}, character_list=characters,
    )  # fmt: skip


def pp_ocr_detector(folder: Path) -> None:
    import transformers

    blocks = [
        [[3, 16, 32, 1, False]], [[3, 32, 32, 2, False]], [[3, 32, 32, 2, False]], [[3, 32, 64, 2, False]],
        [[3, 64, 64, 2, False]],
    ]  # fmt: skip
    backbone = transformers.PPLCNetV3Config(
        block_configs=blocks, scale=1.0, divisor=16, out_features=["stage2", "stage3", "stage4", "stage5"]
    )
    config = transformers.PPOCRV5MobileDetConfig(
        backbone_config=backbone, neck_out_channels=16, layer_list_out_channels=[16, 16, 16, 16]
    )
    save(
        folder, "PPOCRV5MobileDetForObjectDetection", config, image_processor_type="PPOCRV5ServerDetImageProcessor",
        size={"height": 960, "width": 960}, limit_side_len=960, image_mean=[0.406, 0.456, 0.485],
        image_std=[0.225, 0.224, 0.229],
    )  # fmt: skip


SAM_SIDE = 64
SAM_DECODER = {
    "hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
}  # fmt: skip


def sam(folder: Path, version: str = "Sam") -> None:
    import transformers

    prefix = f"{version}"
    vision = getattr(transformers, f"{prefix}VisionConfig")(
        hidden_size=32, output_channels=32, num_hidden_layers=2, num_attention_heads=2, image_size=SAM_SIDE,
        patch_size=16, window_size=2, global_attn_indexes=[1], mlp_dim=32, num_pos_feats=16,
    )  # fmt: skip
    prompts = getattr(transformers, f"{prefix}PromptEncoderConfig")(
        hidden_size=32, image_size=SAM_SIDE, patch_size=16, mask_input_channels=4
    )
    more = {"vit_dim": 32} if version == "SamHQ" else {}
    decoder = getattr(transformers, f"{prefix}MaskDecoderConfig")(**SAM_DECODER, **more)
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    save(
        folder, f"{version}Model", config, image_processor_type="SamImageProcessor", size={"longest_edge": SAM_SIDE},
        pad_size={"height": SAM_SIDE, "width": SAM_SIDE}, do_pad=True,
    )  # fmt: skip


def sam2(folder: Path, kind: str = "Sam2Video") -> None:
    """As Meta's repositories have it: the tracker's config, weights for tracking and for single frames."""
    import transformers

    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16, image_size=[SAM_SIDE, SAM_SIDE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 2, 4, 2], global_attention_blocks=[3],
        patch_stride=[4, 4], window_positional_embedding_background_size=[4, 4], num_attention_heads=1,
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=128,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    prompts = getattr(transformers, f"{kind}PromptEncoderConfig")(
        hidden_size=128, image_size=SAM_SIDE, patch_size=16, mask_input_channels=4
    )
    decoder = getattr(transformers, f"{kind}MaskDecoderConfig")(**{**SAM_DECODER, "hidden_size": 128})
    if kind == "EdgeTamVideo":
        width = {
            "memory_attention_mlp_hidden_size": 32,
            "perceiver_resampler_num_latents": 16, "perceiver_resampler_num_latents_2d": 16,
            "perceiver_resampler_mlp_intermediate_size": 32, "memory_attention_rope_k_sizes": [4, 4],
        }  # fmt: skip
    else:
        width = {"memory_attention_feed_forward_hidden_size": 32}
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder, image_size=SAM_SIDE,
        memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64, mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
        enable_occlusion_spatial_embedding=True, enable_temporal_pos_encoding_for_object_pointers=True, **width,
    )  # fmt: skip
    save(
        folder, f"{kind}Model", config, image_processor_type="Sam2ImageProcessor",
        size={"height": SAM_SIDE, "width": SAM_SIDE},
    )  # fmt: skip


def sam3_vision() -> Any:
    import transformers

    side = 8 * 14
    backbone = transformers.Sam3ViTConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=side,
        patch_size=14, window_size=4, global_attn_indexes=[1], pretrain_image_size=56,
    )  # fmt: skip
    return transformers.Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=128, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
    )


def sam3_concepts(words: int) -> Any:
    import transformers

    small = {"hidden_size": 128, "num_attention_heads": 2}
    return transformers.Sam3Config(
        vision_config=sam3_vision(),
        text_config={
            "model_type": "clip_text_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": words, "max_position_embeddings": 32, "projection_dim": 32,
            "eos_token_id": words - 1, "bos_token_id": words - 2,
        },
        geometry_encoder_config={**small, "num_layers": 1, "intermediate_size": 32},
        detr_encoder_config={**small, "num_layers": 1, "intermediate_size": 32},
        detr_decoder_config={**small, "num_layers": 1, "intermediate_size": 32, "num_queries": 6},
        mask_decoder_config={**small},
    )  # fmt: skip


def sam3(folder: Path, kind: str = "Sam3Video") -> None:
    """`Sam3Video`: as Meta's repository has it, for words, clicks and tracking; `Sam3`: for words alone."""
    import transformers

    words = clip_words(folder)
    config = concepts = sam3_concepts(words)
    if kind == "Sam3Video":
        tracker = transformers.Sam3TrackerVideoConfig(
            vision_config=sam3_vision(),
            prompt_encoder_config={"hidden_size": 128, "image_size": 112, "patch_size": 14, "mask_input_channels": 4},
            mask_decoder_config={**SAM_DECODER, "hidden_size": 128},
            image_size=112, memory_attention_hidden_size=128, memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[8, 8],
            memory_encoder_hidden_size=128, memory_encoder_output_channels=64, mask_downsampler_embed_dim=128,
            memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
        )  # fmt: skip
        config = transformers.Sam3VideoConfig(detector_config=concepts, tracker_config=tracker, low_res_mask_size=32)
    save(
        folder, f"{kind}Model", config, image_processor_type="Sam3ImageProcessor",
        size={"height": 1008, "width": 1008},
    )  # fmt: skip


def not_a_number(folder: Path, place: Path) -> Path:
    """A copy of a model whose weights are NaN, as those of a training run that went wrong."""
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, place / "broken")
    weights = load_file(copy / "model.safetensors")
    broken = {name: weight * float("nan") if weight.is_floating_point() else weight for name, weight in weights.items()}
    save_file(broken, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def pictures(*sizes: tuple[int, int]) -> list[Frame]:
    """Frames of (height, width) with soft spots of colour, each another; the same ones in every run."""
    from PIL import Image

    rng = np.random.default_rng(0)
    frames = []
    for number, (height, width) in enumerate(sizes):
        spots = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
        frames.append(Frame(number, f"{number}.png", np.array(spots.resize((width, height)))))
    return frames
