"""Every visual token has its place: checked against the tiles that vLLM's own preprocessing cuts."""

import numpy as np
import pytest
from PIL import Image
from vllm import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.transformers_utils.processors.internvl import dynamic_preprocess_internvl

from tests.support.images import random_image
from vllm_sgl.families import family_of
from vllm_sgl.host.render.media_files import load_image
from vllm_sgl.visual.layout import tiled

SIDE, CELLS = 112, 4
GRIDS = [(columns, rows) for columns in range(1, 13) for rows in range(1, 13) if columns * rows <= 12]


def coordinates(width, height):
    """An image whose red says how far right a pixel is and whose green how far down, of 256."""
    y, x = np.indices((height, width))
    image = np.stack([x * 256 // width, y * 256 // height, np.zeros_like(x)], axis=-1)
    return Image.fromarray(image.astype(np.uint8))


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (3, 2), (1, 5), (6, 1), (4, 3)])
def test_boxes_are_where_vllm_cuts(columns, rows):
    width, height = columns * SIDE, rows * SIDE
    layout = tiled(columns, rows, CELLS, thumbnail=columns * rows > 1)
    parts = dynamic_preprocess_internvl(
        coordinates(width, height),
        target_ratios=sorted(GRIDS, key=np.prod),
        image_size=SIDE,
        use_thumbnail=True,
    )
    assert len(parts) * CELLS**2 == layout.visual_tokens
    # In a tile tokens run row by row: the mean colour of each token's pixels, in the model's order.
    blocks = np.stack([np.asarray(part, dtype=float) for part in parts])
    cell = SIDE // CELLS
    means = blocks.reshape(-1, CELLS, cell, CELLS, cell, 3).mean(axis=(2, 4)).reshape(-1, 3)
    boxes = layout.boxes(width, height)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(means[:, :2], centres / (width, height) * 256, atol=2)


def test_maps_put_values_where_their_boxes_are():
    layout = tiled(columns=3, rows=2, cells=4, thumbnail=True)
    boxes = layout.boxes(12, 8)  # one pixel a token
    tiles, thumbnail = layout.maps(np.arange(layout.visual_tokens))
    assert tiles.shape == (8, 12)
    assert sorted(tiles.flatten()) == list(range(6 * 16))
    for y, row in enumerate(tiles):
        for x, token in enumerate(row):
            assert boxes[token].tolist() == [x, y, x + 1, y + 1]
    assert thumbnail.flatten().tolist() == list(range(96, 112))
    assert boxes[-1].tolist() == [9, 6, 12, 8]


def test_a_single_tile_has_no_thumbnail():
    layout = tiled(columns=1, rows=1, cells=4, thumbnail=False)
    assert layout.visual_tokens == 16
    (tile,) = layout.maps(range(16))
    assert tile.flatten().tolist() == list(range(16))


@pytest.mark.parametrize("most", [None, 2])
def test_tiling_is_the_models(qwen2_pair, most):
    """Whatever is set for the processor: the visual tokens are those that vLLM makes placeholders for."""
    settings = {} if most is None else {"mm_processor_kwargs": {"max_dynamic_patch": most}}
    model = EngineArgs(str(qwen2_pair[1]), trust_remote_code=True, **settings).create_model_config()
    layout_of = family_of(model).layout_of(model)
    processor = MULTIMODAL_REGISTRY.create_processor(model).info.get_hf_processor()
    found = set()
    for size in [(112, 112), (300, 200), (200, 300), (1000, 90), (90, 1000), (301, 207), (5, 5)]:
        layout = layout_of(*size)
        assert (layout.tile_tokens, len(layout.views)) == (16, 1 + (layout.columns * layout.rows > 1))
        assert layout.visual_tokens == processor.get_num_image_tokens(
            image_width=size[0], image_height=size[1]
        )
        found.add((layout.columns, layout.rows))
    assert max(columns * rows for columns, rows in found) == (most or 6)


def test_an_image_is_loaded_as_a_server_does(tmp_path):
    """Turned as its camera was held, on white where it is transparent."""
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: rotated by 90 degrees
    random_image(0, 60, 40).save(tmp_path / "turned.jpg", exif=turned)
    assert load_image(tmp_path / "turned.jpg").size == (40, 60)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
