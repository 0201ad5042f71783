"""One combination of :mod:`.importance`, in a process of its own; takes its settings as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.support.load import ENDLESS
from tests.support import rendering
from tests.support.images import random_image
from tools.reference import reference, select

GUIDE_TOKENS = 8
RETENTION = 0.35
#: Different tilings, so that the batch is ragged and prompts are longer than one block.
SIZES = ((112, 112), (224, 336), (448, 112), (336, 224))


def main() -> None:
    asked = json.loads(sys.argv[1])
    found = guided(asked)
    small = reference(Path(asked["small"]))
    errors, common, chosen = [], 0, 0
    for (tokens, pixels, answer), importance in found:
        expected = small.importance(tokens, pixels, answer)
        a, b = torch.cat(importance).double(), torch.cat(expected).double()
        errors.append(((a - b).abs().sum() / b.sum()).item())
        ours, theirs = (torch.cat(_masks(select(x, RETENTION), x)) for x in (importance, expected))
        common, chosen = common + int((ours & theirs).sum()), chosen + int(theirs.sum())
    result = {"relative_error": max(errors), "top_agreement": common / chosen, "requests": len(found)}
    Path(asked["result"]).write_text(json.dumps(result))


def guided(asked: dict) -> list:
    """Per request: ((prompt tokens, pixels per image, the guide's answer), importance per image).

    An exit threshold of 0 makes the guide's own answer come back, whose tokens the reference needs.
    """
    from vllm_sgl import LLM

    attention = {"attention_backend": asked["backend"]} if asked["backend"] else {}
    llm = LLM(
        asked["large"],
        sgl_small=asked["small"],
        sgl_guide_tokens=GUIDE_TOKENS,
        sgl_exit_threshold=0.0,
        sgl_break_even="off",
        sgl_follow_ups="off",
        sgl_small_args={"kv_cache_memory_bytes": 64 << 20, **attention},
        trust_remote_code=True,
        dtype=asked["dtype"],
        enforce_eager=not asked["graphs"],
        max_model_len=1024,
        max_num_seqs=8,
        kv_cache_memory_bytes=64 << 20,
        # Many engines share the device here, and vLLM refuses to start where this share is not free.
        gpu_memory_utilization=0.15 if torch.cuda.is_available() else 0.9,
        **attention,
    )
    try:
        return _ask(llm, json.loads((Path(asked["small"]) / "config.json").read_text()))
    finally:
        llm.llm_engine.shutdown()


def _ask(llm: Any, config: dict) -> list:
    from vllm import SamplingParams

    images = [random_image(seed, *size) for seed, size in enumerate(SIZES)]
    text = rendering.chat_prompt("What is on the sign? How many are there?", 1)
    prompts = [{"prompt": text, "multi_modal_data": {"image": image}} for image in images]
    params = SamplingParams(temperature=0, max_tokens=GUIDE_TOKENS, **ENDLESS)
    found = []
    for image, output in zip(images, llm.generate(prompts, params, use_tqdm=False), strict=True):
        report = output.sgl
        if report.decision != "exit":
            raise SystemExit(f"expected the guide's answer; decision {report.decision}: {report.reason}")
        answer = list(output.outputs[0].token_ids)
        pixels = [rendering.pixel_values(image, config)]
        found.append(((output.prompt_token_ids, pixels, answer), report.importance))
    return found


def _masks(kept: list[torch.Tensor], importance: list[torch.Tensor]) -> list[torch.Tensor]:
    masks = [torch.zeros(len(part), dtype=torch.bool) for part in importance]
    for mask, indices in zip(masks, kept, strict=True):
        mask[indices] = True
    return masks


if __name__ == "__main__":
    main()
