"""Decoders from vectors to images: moments, the small one's file, and diffusers' own pipelines with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from turkish_clip.bank import TextBank
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.generate import draw_decoded, load_decoder, wishes_of
from turkish_clip.generate.autoencoder import GeneratorError
from turkish_clip.generate.decoder import (
    RECORD,
    WEIGHTS,
    DecoderRecord,
    Moments,
    SmallDecoder,
    UnclipDecoder,
    as_image_vectors,
    save_decoder,
)

SHA = "0" * 64


def small(dim: int = 16, channels: tuple[int, ...] = (16, 8)) -> SmallDecoder:
    torch.manual_seed(0)
    decoder = SmallDecoder(DecoderRecord(dim=dim, channels=channels, image_weights_sha256=SHA))
    decoder.mean += 0.5
    decoder.deviation *= 2
    return decoder.eval()


def test_one_image_for_each_vector_of_the_size_that_the_channels_give() -> None:
    decoder = small()
    done: list[tuple[int, int]] = []
    vectors = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    images = decoder.images(vectors, seed=0, progress=lambda *given: done.append(given))
    assert [image.size for image in images] == [(16, 16)] * 3  # 4 · 2 · 2
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert images[0].tobytes() != images[1].tobytes()
    assert images[0].tobytes() == decoder.images(vectors[:1], seed=1)[0].tobytes()


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded(tmp_path: Path, half: bool) -> None:
    decoder = small()
    save_decoder(decoder, tmp_path, half=half)
    loaded = load_decoder(tmp_path, image_weights_sha256=SHA)
    vectors = np.ones((1, 16), np.float32)
    one, other = (np.asarray(each.images(vectors, seed=0)[0], int) for each in (decoder, loaded))
    assert np.abs(one - other).max() <= (3 if half else 0)
    assert np.allclose(loaded.moments.mean, 0.5)
    assert np.allclose(loaded.moments.deviation, 2)
    assert {tensor.dtype for tensor in load_file(tmp_path / WEIGHTS).values()} == {
        torch.float16 if half else torch.float32
    }


def test_a_text_is_moved_to_where_images_lie() -> None:
    """Texts of mean 0.1 and deviation 0.2 in each component become images of mean 0.5 and deviation 2."""
    decoder = small(dim=2)
    texts = np.array([[0.3, -0.1]], np.float32)
    bank = TextBank(np.array([[1, 0], [0, 1]], np.float16), SHA)  # mean 0.5, deviation 0.5
    assert np.allclose(as_image_vectors(texts, decoder, bank), [[(0.3 - 0.5) / 0.5 * 2 + 0.5, (-0.6) / 0.5 * 2 + 0.5]])
    length = np.sqrt(2 * (0.5**2 + 2**2))
    assert np.allclose(as_image_vectors(texts, decoder, None), texts * length)
    with pytest.raises(GeneratorError, match="image vectors 3 wide, as the text encoder's, got one of 2"):
        as_image_vectors(np.zeros((1, 3), np.float32), decoder, bank)


def test_moments() -> None:
    moments = Moments.of(np.array([[1, 2], [3, 2]], np.float16))
    assert moments.mean.tolist() == [2, 2]
    assert moments.deviation.tolist() == [1, 0]


def test_drawn_by_a_decoder(encoder: DualEncoder) -> None:
    decoder = small(dim=encoder.dim)
    drawing = draw_decoded(encoder, wishes_of(encoder, ["kırmızı bir ev"], avoid=["mavi"]), decoder, steps=0)
    (batch,) = encoder.embed_images([drawing.image])
    expected = (batch.vectors @ encoder.encode_texts(["kırmızı bir ev", "mavi"]).T)[0]
    assert drawing.scores == pytest.approx(dict(zip(["kırmızı bir ev", "mavi"], expected.tolist())), abs=1e-5)
    with pytest.raises(GeneratorError, match="16 wide, as the text encoder's, got one of 7"):
        draw_decoded(encoder, wishes_of(encoder, ["ev"]), small(dim=7))


def test_what_a_small_decoder_drew_is_optimised(encoder: DualEncoder) -> None:
    decoder = small(dim=encoder.dim)
    with torch.no_grad():
        decoder.pixels.weight *= 30  # so that its images are more than grey
    weights = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    wishes, shown = wishes_of(encoder, ["kırmızı bir ev"]), []
    first = draw_decoded(encoder, wishes, decoder, steps=0)
    last = draw_decoded(encoder, wishes, decoder, steps=60, every=20, frame=shown.append)
    assert last.steps == 60
    assert last.scores["kırmızı bir ev"] > first.scores["kırmızı bir ev"] + 0.01
    assert len(shown) == 3
    assert shown[0].tobytes() == first.image.tobytes()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in decoder.state_dict().items())


def damaged(name: str, **values: Any) -> Any:
    def damage(folder: Path) -> None:
        if name == RECORD:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8")) | values
            (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
        else:
            tensors = load_file(folder / WEIGHTS)
            save_file({**tensors, **values}, folder / WEIGHTS)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / RECORD).unlink(), "got neither turkish_clip_decoder.json nor model_index.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), r"expected the weights that .* describes"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x"), r"expected the weights that .* describes"),
        (damaged(RECORD, dim=12), r"expected the weights that .* describes"),
        (damaged(RECORD, channels=[12]), "not multiples of 8"),
        (damaged(RECORD, dim=10**9), "not 1 to 65536"),
        (damaged(RECORD, image_weights_sha256="1" * 64), "which is for other weights"),
        (damaged(WEIGHTS, mean=torch.full((16,), torch.nan)), "got NaN or infinity"),
    ],
)
def test_a_decoder_that_is_damaged_or_of_another_image_model(tmp_path: Path, damage: Any, message: str) -> None:
    save_decoder(small(), tmp_path)
    damage(tmp_path)
    with pytest.raises(GeneratorError, match=message) as caught:
        load_decoder(tmp_path, image_weights_sha256=SHA)
    assert "\n" not in str(caught.value)


def test_a_pipeline_of_another_kind(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    with pytest.raises(GeneratorError, match=r"got a StableDiffusionPipeline; name one that takes image vectors"):
        load_decoder(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableUnCLIPImg2ImgPipeline"}', encoding="utf-8")
    with pytest.raises(GeneratorError, match="expected a decoder in .*gone, got no such folder; correct the path"):
        load_decoder(tmp_path / "gone")
    with pytest.raises(GeneratorError, match="expected an unCLIP decoder in"):
        load_decoder(tmp_path)


@pytest.fixture(scope="module")
def stable_unclip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StableUnCLIPImg2ImgPipeline of tiny parts with random weights, for vectors 16 wide, saved."""
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig
    from transformers import CLIPVisionModelWithProjection as VisionTower

    from training.small_models.vocabularies import learn_bpe

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, projection_dim=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        intermediate_size=16,
    )  # fmt: skip
    tokenizer = learn_bpe(["a red house above a blue bird", "two yellow suns"], 514, 77)
    text = CLIPTextConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=len(tokenizer),
        bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=32,
    )  # fmt: skip
    normaliser = diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(embedding_dim=16)
    with torch.no_grad():
        normaliser.mean += 0.25
        normaliser.std *= 3
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), block_out_channels=(8, 16), attention_head_dim=4,
        class_embed_type="projection", projection_class_embeddings_input_dim=32, cross_attention_dim=32,
        layers_per_block=1, norm_num_groups=4, use_linear_projection=True,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    pipeline = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(size=32, crop_size=32),
        image_encoder=VisionTower(vision),
        image_normalizer=normaliser,
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer,
        text_encoder=CLIPTextModel(text),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False),
        vae=vae,
    )
    folder = tmp_path_factory.mktemp("unclip")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def test_stable_unclip_draws_from_a_text(stable_unclip: Path, encoder: DualEncoder) -> None:
    decoder = load_decoder(stable_unclip, steps=2)
    assert isinstance(decoder, UnclipDecoder)
    assert decoder.dim == 16
    assert np.allclose(decoder.moments.mean, 0.25)
    assert np.allclose(decoder.moments.deviation, 3)
    wishes = wishes_of(encoder, ["kırmızı bir ev"])
    one, same, other = (draw_decoded(encoder, wishes, decoder, seed=seed).image for seed in (0, 0, 1))
    assert isinstance(one, Image.Image)
    assert one.tobytes() == same.tobytes() != other.tobytes()
