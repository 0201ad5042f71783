"""Odd requests: keys, images and sampling parameters that nobody should send, and some that one may."""

import base64
import io
import random
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.support.images import random_image

_NAMES = (
    "retention", "exit_threshold", "guide_tokens", "query_rows", "enabled", "policy", "small", "positions",
    "consistency_retention", "shadow", "on_error", "break_even", "feature_cache", "track", "rows", "item",
    "kept", "",
)  # fmt: skip
_SPELLINGS = (
    "sgl_{}", "sgl_{}", "sgl_{}", "sgl_{}", "SGL_{}", "Sgl_{}", "sgl-{}", "sgl_{} ", " sgl_{}", "sgl{}",
    "sgl__{}", "{}", "sgl.{}", "sgl_{}\u200b",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    0, 1, -1, 0.35, 0.0, 1.0, 1.5, -0.1, 1e308, 2**63, "0.35", "1", "off", "auto", "", " ", "prompt", "top",
    "nan", "inf", "null", "true", [], [1], ["a"], [0.5, 0.5], "a" * 10_000, "\u0000", "'; --", "../../x",
    True, False, None, {}, {"a": 1},
)  # fmt: skip


def keys(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """``vllm_xargs`` of one to three entries."""
    rng = random.Random(seed)
    for _ in range(count):
        yield {
            rng.choice(_SPELLINGS).format(rng.choice(_NAMES)): rng.choice(_VALUES)
            for _ in range(rng.choice((1, 1, 1, 2, 3)))
        }


#: Fields of a body, each tried with every value.
_SAMPLING: dict[str, tuple[Any, ...]] = {
    "temperature": (-1, 0.0, 2.5, 1e9, "hot", None),
    "top_p": (0, 1.1, -0.5, 0.01),
    "top_k": (-2, -1, 0, 1, 10**9),
    "min_p": (-0.1, 0.5, 1.5),
    "presence_penalty": (-2, 2, 3),
    "frequency_penalty": (-2, 2, -3),
    "repetition_penalty": (0, -1, 0.5, 2),
    "n": (0, 1, 2, 17, -1),
    "max_tokens": (0, 1, -1, 10**9),
    "max_completion_tokens": (0, 1, 3),
    "min_tokens": (-1, 0, 5, 10**6),
    "stop": ("", "a", ["a", "b"], [""], [], ["x"] * 50),
    "stop_token_ids": ([], [0], [-1], [10**9], ["a"]),
    "logit_bias": ({}, {"5": 1}, {"-5": 1}, {"999999": 1}, {"5": 1000}, {"a": 1}),
    "allowed_token_ids": ([], [5], [5, 6, 7], [10**6]),
    "bad_words": ([], ["a"], [""], ["zzzz"]),
    "logprobs": (True, False),
    "top_logprobs": (0, 3, 100, -1),
    "prompt_logprobs": (0, 1, 100),
    "seed": (0, -1, 2**62, "a"),
    "ignore_eos": (True, "yes"),
    "skip_special_tokens": (True, False),
    "include_stop_str_in_output": (True,),
    "echo": (True,),
    "add_generation_prompt": (False,),
    "stream_options": ({"include_usage": True},),
    "tools": ([], [{}]),
    "tool_choice": ("none", "required"),
    "response_format": ({"type": "text"}, {"type": "no such"}),
    "priority": (0, 5),
    "thinking_token_budget": (1,),
    "repetition_detection": ({},),
}


def sampling(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """So many different bodies of one field each, spread over all fields."""
    every = [{name: value} for name, values in _SAMPLING.items() for value in values]
    return random.Random(seed).sample(every, min(count, len(every)))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def images(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(what it is, the file), of 90 kinds and more: sizes, colours, formats, and files that are none."""
    base = random_image(seed, 96, 64)
    for size in (
        (1, 1), (1, 2), (2, 1), (3, 3), (1, 500), (500, 1), (1, 5000), (5000, 1), (7, 911), (911, 7),
        (28, 28), (56, 56), (57, 57), (448, 448), (449, 448), (1000, 30), (30, 1000), (2000, 2000),
        (20000, 3), (3, 20000),
    ):  # fmt: skip
        yield f"{size[0]}x{size[1]}", _encoded(base.resize(size), "PNG")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"png {mode}", _encoded(base.convert(mode), "PNG")
    for mode in ("1", "L", "CMYK", "LAB", "YCbCr", "F", "I", "I;16", "RGBA", "P"):
        yield f"tiff {mode}", _encoded(base.convert(mode), "TIFF")
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        yield f"jpeg {mode}", _encoded(base.convert(mode), "JPEG")
    for kind in ("BMP", "GIF", "ICO", "PPM", "TGA", "WEBP", "JPEG2000", "DDS", "SGI", "PCX", "MSP", "IM"):
        yield kind, _encoded(base.convert("1") if kind == "MSP" else base, kind)
    frames = [random_image(seed + number, 64, 64) for number in range(4)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"animated {kind}", _encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    for quality in (1, 100):
        yield f"jpeg quality {quality}", _encoded(base, "JPEG", quality=quality)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"orientation {turn}", _encoded(base, "JPEG", exif=exif)
    png, jpeg = _encoded(base, "PNG"), _encoded(base, "JPEG")
    for share in (0.1, 0.5, 0.9, 0.99):
        yield f"png cut at {share}", png[: int(share * len(png))]
        yield f"jpeg cut at {share}", jpeg[: int(share * len(jpeg))]
    rng = random.Random(seed)
    for name, file in (("png", png), ("jpeg", jpeg)):
        for place in range(3):
            flipped = bytearray(file)
            for _ in range(1 + 4 * place):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            yield f"{name} flipped {place}", bytes(flipped)
    yield "empty", b""
    yield "text", b"no image"
    yield "zeros", bytes(1000)
    yield "html", b"<html><body>404</body></html>"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "json", b'{"type": "image"}'
    yield "png and more", png + bytes(1000)
    yield "two files", png + jpeg
    yield "random bytes", rng.randbytes(5000)
    yield "pdf", b"%PDF-1.4\n%%EOF"


def url(file: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(file).decode()
