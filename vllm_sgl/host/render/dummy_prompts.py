"""vLLM's renderer and dummy inputs: rendered prompts about an image that no client sent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from vllm.renderers import ChatParams
from vllm.renderers.inputs.preprocess import parse_model_prompt

from vllm_sgl.host.render.conversation import Conversation, attach

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.engine.async_llm:AsyncLLM.model_config.multimodal_config",
    "vllm.v1.engine.async_llm:AsyncLLM.get_tokenizer",
    "vllm.renderers.base:BaseRenderer.get_mm_processor.dummy_inputs.get_dummy_text(mm_counts)",
    "vllm.renderers.base:BaseRenderer.render_cmpl_async(prompts, skip_mm_cache)",
    "vllm.config.multimodal:MultiModalConfig.get_limit_per_prompt(modality)",
)

_QUESTION = "\nWhat is written on the sign next to the door? Answer with a single word."


def noise(width: int, height: int, seed: int | Sequence[int]) -> Image.Image:
    """A random image, which is in no cache."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def most_images(engine: Any) -> int:
    """How many images `engine` allows in a prompt (``--limit-mm-per-prompt``)."""
    most: int = engine.model_config.multimodal_config.get_limit_per_prompt("image")
    return most


async def image_prompt(engine: Any, images: Sequence[Image.Image]) -> Any:
    """A question about images as `engine`, an ``AsyncLLM``, renders it: a ``MultiModalInput`` that can be
    rendered for another model too."""
    renderer = engine.renderer
    marker = renderer.get_mm_processor().dummy_inputs.get_dummy_text({"image": len(images)})
    prompt = {"prompt": marker + _QUESTION, "multi_modal_data": {"image": [*images]}}
    parsed = parse_model_prompt(engine.model_config, prompt)
    (rendered,) = await renderer.render_cmpl_async([parsed], skip_mm_cache=True)
    content: list[dict[str, Any]] = [{"type": "image_pil", "image_pil": image} for image in images]
    content.append({"type": "text", "text": _QUESTION})
    params = ChatParams(chat_template_kwargs={"add_generation_prompt": True})
    attach(rendered, Conversation([{"role": "user", "content": content}], params, {"image": [*images]}))
    return rendered


def text_prompt(engine: Any, tokens: int) -> Any:
    """A rendered prompt of ``tokens`` text tokens."""
    ids = engine.get_tokenizer().encode(_QUESTION, add_special_tokens=False)
    return {"type": "token", "prompt_token_ids": (ids * (tokens // len(ids) + 1))[:tokens]}
