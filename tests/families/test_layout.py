"""Every visual token of every family lies where the model's own processor takes its pixels from.

Images whose red says how far right a pixel is and whose green how far down go through the real processor; the
mean colour that reaches a token must be that of its box's centre.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaOnevisionConfig, LlavaOnevisionImageProcessor
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from vllm import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY

from tests.support.processing import processor
from tools import tiny_internvl
from tools.tiny_families import FAMILIES, SMALL, build
from vllm_sgl.families import family_of
from vllm_sgl.families.llava_onevision import Anyres
from vllm_sgl.host.render.small_prompt import place_of_image, processor_of
from vllm_sgl.visual.items import embed_mask
from vllm_sgl.visual.layout import Layout, View, grid

#: Photographs, screens, a strip, a banner, and one that is smaller than any token.
SIZES = [(640, 480), (480, 640), (1024, 768), (500, 375), (333, 500), (1600, 300), (120, 900), (20, 28)]
#: Of the published Qwen2-VL and Qwen3-VL, in visual tokens; GLM-4V counts those of two frames.
LIMITS = {"qwen2_vl": (4, 1280), "qwen2_5_vl": (4, 1280), "qwen3_vl": (64, 2048), "glm4v": (32, 4096)}
PUBLISHED = LlavaOnevisionConfig()
#: Mean and standard deviation of colours, with which InternVL's chat format normalises.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def coordinates(width: int, height: int) -> Image.Image:
    y, x = np.indices((height, width))
    colours = np.stack([(x + 0.5) * 255 / width, (y + 0.5) * 255 / height, np.zeros_like(x)], axis=-1)
    return Image.fromarray(colours.round().astype(np.uint8))


def errors(layout: Layout, seen: np.ndarray, width: int, height: int) -> np.ndarray:
    """How far the centre [n, 2] that tokens saw, in shares of the image, is from their boxes'; in boxes."""
    boxes = layout.boxes(width, height) / (width, height, width, height)
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - seen) / sides


@pytest.mark.parametrize("name", FAMILIES)
def test_as_many_tokens_as_vllm_makes_placeholders_for(name, tmp_path):
    model = EngineArgs(str(build(FAMILIES[name], SMALL, tmp_path))).create_model_config()
    layout_of = family_of(model).layout_of(model)
    info = MULTIMODAL_REGISTRY.create_processor(model).info
    extra = {}
    if "qwen" in name:
        extra = {"image_processor": info.get_image_processor(), "mm_kwargs": {}}
    elif "internvl" in name:
        extra = {"processor": info.get_hf_processor(), "mm_kwargs": {}}
    for width, height in [*SIZES, (1, 150), (60, 60), (61, 59)]:
        layout = layout_of(width, height)
        if "glm" in name:  # vLLM's own count leaves out the second frame, in limits on pixels
            expected = int(embed_mask(place_of_image(processor_of(model), width, height)).sum())
        else:
            expected = info.get_num_image_tokens(image_width=width, image_height=height, **extra)
        assert layout.visual_tokens == expected
        every = np.concatenate([view.tokens.flatten() for view in layout.views])
        assert len(set(every)) == len(every) <= layout.visual_tokens


def test_a_views_spans_are_shares_of_the_image():
    """Two columns with a gap, the second half in the padding; one row."""
    across = np.array([[0.0, 0.4], [0.5, 1.5]])
    layout = Layout(3, (View(np.array([[2, 0]]), across),))
    assert layout.boxes(100, 10).tolist() == [[50, 0, 100, 10], [0, 0, 0, 0], [0, 0, 40, 10]]
    assert grid(2, 3).boxes(20, 30)[3].tolist() == [10, 10, 20, 20]


@pytest.fixture(scope="module", params=LIMITS)
def qwen(request, tmp_path_factory):
    """The layout, and the image processor, of a Qwen model whose images have the published limits."""
    name = request.param
    path = build(FAMILIES[name], SMALL, tmp_path_factory.mktemp(name))
    images = processor(path).image_processor
    least, most = LIMITS[name]
    token = (images.patch_size * images.merge_size) ** 2
    size = {"shortest_edge": least * token, "longest_edge": most * token}
    model = EngineArgs(str(path), mm_processor_kwargs={"size": size}).create_model_config()
    return family_of(model).layout_of(model), images, size


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tokens_of_a_qwen_image(qwen, size):
    layout_of, images, limits = qwen
    layout = layout_of(*size)
    output = images(images=[coordinates(*size)], return_tensors="pt", size=limits)
    pixels = output["pixel_values"].view(-1, images.merge_size**2, 3, images.patch_size**2 * 2)
    mean, std = torch.tensor(images.image_mean), torch.tensor(images.image_std)
    colours = pixels.mean((1, 3)) * std + mean
    assert len(colours) == layout.visual_tokens
    assert errors(layout, colours[:, :2].numpy(), *size).max() < 0.06


@pytest.fixture(scope="module", params=["internvl", "internvl_hf"])
def internvl(request, tmp_path_factory):
    """The layout, and what cuts an image into tiles [tiles, 3, side, side] of colours, of each format."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "internvl":
        path = tiny_internvl.build(tiny_internvl.SMALL_QWEN2, folder)
    else:
        path = build(FAMILIES["internvl_hf"], SMALL, folder)
    model = EngineArgs(str(path), trust_remote_code=True).create_model_config()
    whole = MULTIMODAL_REGISTRY.create_processor(model).info.get_hf_processor()
    images = whole.image_processor

    def cut(image: Image.Image) -> torch.Tensor:
        if request.param == "internvl":
            pixels, (mean, std) = images(image)["pixel_values_flat"], IMAGENET
        else:
            pixels = images(images=[image], return_tensors="pt")["pixel_values"]
            mean, std = images.image_mean, images.image_std
        return pixels * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)

    return family_of(model).layout_of(model), cut, math.isqrt(whole.image_seq_length)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tokens_of_an_internvl_image(internvl, size):
    layout_of, cut, cells = internvl
    layout, tiles = layout_of(*size), cut(coordinates(*size))
    patch = tiles.shape[-1] // cells
    colours = tiles.view(-1, 3, cells, patch, cells, patch).mean((3, 5)).flatten(2).mT.reshape(-1, 3)
    assert len(colours) == layout.visual_tokens
    assert errors(layout, colours[:, :2].numpy(), *size).max() < 0.06


@pytest.mark.parametrize("size", [*SIZES, (2000, 1500), (1500, 2200)], ids=str)
def test_tokens_of_a_llava_onevision_image(size):
    """Published sizes: tiles of 384 pixels, of which 27 x 27 patches of 14 see 378."""
    layout = Anyres(384, 14, PUBLISHED.image_grid_pinpoints, most=9).layout(*size)
    images = LlavaOnevisionImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    output = images(images=[coordinates(*size)], return_tensors="pt")
    tiles = output["pixel_values"][0] * 0.5 + 0.5
    patches = tiles[..., :378, :378].reshape(-1, 3, 27, 14, 27, 14).mean((3, 5)).flatten(2).mT
    # transformers' own way from patches to tokens, on colours for features; newlines are nothing.
    (colours,), _ = LlavaOnevisionModel.pack_image_features(
        SimpleNamespace(config=PUBLISHED), [patches], output["image_sizes"],
        image_newline=torch.full((3,), torch.nan),
    )  # fmt: skip
    assert len(colours) == layout.visual_tokens
    newlines = colours.isnan().any(1).numpy()
    assert not layout.boxes(*size)[newlines].any()
    whole = seen_whole(layout)
    assert whole.sum() > 0.9 * (~newlines).sum()
    found = errors(layout, colours[:, :2].numpy(), *size)[whole]
    shrunk = layout.views[0].tokens.size > 6000  # by averaging features, whose pixels have gaps
    assert found.max() < (0.35 if shrunk else 0.12)
    assert found.mean() < 0.03


def seen_whole(layout: Layout) -> np.ndarray:
    """Which tokens lie in the image with all of their box: not those that reach into the padding."""
    whole = np.zeros(layout.visual_tokens, dtype=bool)
    for view in layout.views:
        x, y = (((spans >= 0) & (spans <= 1)).all(1) for spans in (view.across, view.down))
        whole[view.tokens] = y[:, None] & x
    return whole
