"""What would become of a pair at start, found out without starting it: configs, tokenizers, processors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm import EngineArgs
from vllm.config import ModelConfig
from vllm.exceptions import VLLMError

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.start import small_config
from vllm_sgl.families import family_of
from vllm_sgl.host.render.small_prompt import own_values, processor_of
from vllm_sgl.pair.verdict import Verdict, judge
from vllm_sgl.pair.work import SHARES, WORTH, speed_up, work_of

_WAYS = {"shared": "shared prompt", "translated": "translated", "crossed": "crossed", "refused": "refused"}
#: Width and height of the image whose visual tokens are told.
_IMAGE = 1024, 768


@dataclass(frozen=True)
class Judged:
    """way: in a word or two. why: what it follows from. cost: of guiding a request, beside the guide's pass;
    None where nothing is guided. gain: what pruning can save of the prefill, at most."""

    small: str
    large: str
    way: str
    why: str
    cost: str | None = None
    gain: str | None = None

    @property
    def refused(self) -> bool:
        return self.cost is None

    def __str__(self) -> str:
        lines = [f"{self.small} -> {self.large}: {self.way}", f"    why:   {self.why}"]
        if self.cost is not None:
            lines += [f"    costs: {self.cost}", f"    gains: {self.gain}"]
        return "\n".join(lines)


def judge_pair(
    small: str,
    large: str,
    trust_remote_code: bool = False,
    small_args: Mapping[str, Any] | None = None,
    **engine_args: Any,
) -> Judged:
    """How one model would guide another, by their files: no weights are read.

    Args:
        small, large: directories, or names on the Hugging Face hub.
        small_args: as ``--sgl-small-args``.
        engine_args: of the large engine.
    """
    config = SGLConfig(small=small, small_args=dict(small_args or {}))
    given = {"trust_remote_code": trust_remote_code, "load_format": "dummy", **engine_args}
    try:
        arguments = EngineArgs(large, **given)
        use_sgl(arguments, config)
        large_config = arguments.create_engine_config()
        models = large_config.model_config, small_config(large_config, config).model_config
        verdict = judge(*models)
        if verdict.way == "refused":
            return Judged(small, large, "refused", str(verdict))
        found = _why(verdict), _cost(verdict, *models), _gain(verdict, *models)
        return Judged(small, large, _WAYS[verdict.way], *found)
    except (OSError, ValueError, VLLMError) as error:
        return Judged(small, large, "refused", " ".join(str(error).split()))


def _why(verdict: Verdict) -> str:
    if verdict.way == "shared":
        return "same tokenizer, chat template and image tiling"
    others = f"another {', another '.join(verdict.differences)}"
    return others if verdict.way == "crossed" else f"same image tiling; {others}"


def _cost(verdict: Verdict, large: ModelConfig, small: ModelConfig) -> str:
    if verdict.way == "shared":
        return "nothing more: one rendering serves both models"
    crossed = verdict.way == "crossed"
    shared = not crossed and own_values(processor_of(large), processor_of(small)) is not None
    images = "once for both models" if shared else "a second time too"
    cost = f"each conversation is rendered a second time as text; its images are processed {images}"
    if crossed:
        own, theirs = _seen(small), _seen(large)
        cost += (
            f"; of an image of {_IMAGE[0]} x {_IMAGE[1]} pixels the small model sees {own:,} visual tokens, "
            f"the large one has {theirs:,}"
        )
    if not verdict.same_tokens:
        cost += "; requests that name, count or ask for token ids never exit"
    return cost


def _seen(model: ModelConfig) -> int:
    """Visual tokens of an image."""
    return family_of(model).layout_of(model)(*_IMAGE).visual_tokens


def _gain(verdict: Verdict, large: ModelConfig, small: ModelConfig) -> str:
    try:
        guide, guided = work_of(small), work_of(large)
    except AttributeError as error:
        return f"not known: a config has no {error.name}"
    seen = _seen(small) / _seen(large) if verdict.way == "crossed" else 1.0
    most = [speed_up(guided, guide, kept, seen) for kept in SHARES]
    said = ", ".join(f"{gain:.1f} with {100 * kept:g} %" for gain, kept in zip(most, SHARES, strict=True))
    works = ", ".join(
        f"{name} {work.decoder / 1e9:.2g} + {work.vision / 1e9:.2g}"
        for name, work in (("guide", guide), ("large model", guided))
    )
    gain = (
        f"a prefill is at most this many times as fast as without a guide: {said} of the visual tokens kept; "
        f"billions of active parameters per visual token (decoder + vision encoder): {works}"
    )
    if most[0] < WORTH:
        gain += (
            f". Below {WORTH} this pair hardly pays by pruning: exits and closed tiles would have to, and "
            "--sgl-break-even leaves requests alone that do not. Take a smaller guide, or no guide"
        )
    return gain
