"""Whether two models make a pair, and how: reads what their files say, and compares."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jinja2 import TemplateError
from vllm.config import ModelConfig
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_sgl.families import family_of, known_architecture, prompt_format
from vllm_sgl.pair.layout_check import why_unknown

_PROBE = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "<image>\nWhat is this?"},
    {"role": "assistant", "content": "A sign."},
    {"role": "user", "content": "What does it say? 12"},
]
_TEXT = "SGL compares 2 tokenizers: <img></img> été 東京"

#: The names under which models differ.
TOKENIZER, TEMPLATE, FORMAT, TILING = "tokenizer", "chat template", "prompt format", "image tiling"

Way = Literal["shared", "translated", "crossed", "refused"]


@dataclass(frozen=True)
class ModelFacts:
    """What a model's config and tokenizer files say of how it is prompted.

    architecture: vLLM's name. format: the name of the format of its prompts and items.
    vision: what its family says about its images, by names in words.
    encoded: ids of one text. rendered: one conversation in its chat template, None without one.
    """

    name: str
    architecture: str
    format: str
    vision: Mapping[str, object]
    vocabulary: Mapping[str, int]
    encoded: tuple[int, ...]
    rendered: str | None


@dataclass(frozen=True)
class Verdict:
    """How one model can guide another.

    way: "shared" where one rendered prompt serves both; "translated" where each needs its own; "crossed"
        where their visual tokens are not the same either, so that importance is carried from one to the
        other; "refused".
    differences: what differs, in words, by one of the names above.
    unknown: of a crossed pair that is refused, why it is not known where a model's visual tokens lie; by its
        name.
    """

    large: str
    small: str
    way: Way
    differences: Mapping[str, str]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def same_tokens(self) -> bool:
        """Whether a token id means the same to both."""
        return TOKENIZER not in self.differences

    def __str__(self) -> str:
        if self.way == "refused":
            why = "; ".join(f"{model}: {reason}" for model, reason in self.unknown.items())
            return (
                f"{self.small} cannot guide {self.large}: their {TILING} differs "
                f"({self.differences[TILING]}), so importance would have to be carried to where the large "
                f"model's visual tokens lie, and that is not known ({why}). Or choose another --sgl-small, "
                "which cuts images into the same visual tokens, such as a smaller model of the same series"
            )
        if self.way == "crossed":
            return (
                f"{self.small} guides {self.large} over a prompt of its own, and importance is carried to "
                f"the large model's visual tokens by where they lie in the image; what differs: "
                f"{', '.join(self.differences)} ({self.differences[TILING]})"
            )
        if self.way == "translated":
            return (
                f"{self.small} guides {self.large} over a prompt of its own; what differs: "
                f"{', '.join(self.differences)}"
            )
        return f"{self.small} guides {self.large} over the same prompt"


def read_facts(
    model: ModelConfig, architecture: str, format: str, vision: Mapping[str, object]
) -> ModelFacts:
    """Read a model's files.

    Args:
        architecture: vLLM's name of the model's class.
        format: the name of the format of its prompts and items.
        vision: what its family says about its vision input.
    """
    tokenizer = cached_tokenizer_from_config(model)
    encoded = tuple(tokenizer.encode(_TEXT))
    return ModelFacts(
        model.model, architecture, format, vision, tokenizer.get_vocab(), encoded, _rendered(tokenizer)
    )


def check_pair(large: ModelFacts, small: ModelFacts) -> Verdict:
    """Compare two models."""
    found = {
        TOKENIZER: _tokenizers(large, small),
        TEMPLATE: _templates(large, small),
        FORMAT: _formats(large, small),
        TILING: _tilings(large, small),
    }
    differences = {name: detail for name, detail in found.items() if detail is not None}
    way: Way = "translated" if differences else "shared"
    if TILING in differences:
        way = "crossed"
    return Verdict(large.name, small.name, way, differences)


def judge(large: ModelConfig, small: ModelConfig) -> Verdict:
    """Whether and how one model can guide another, by their files alone.

    Raises:
        ValueError: where a model's files cannot be read.
    """
    facts = _read("the large model", large), _read("the small model (--sgl-small)", small)
    verdict = check_pair(*facts)
    if verdict.way != "crossed":
        return verdict
    whys = {model.model: why_unknown(model) for model in (large, small)}
    unknown = {name: why for name, why in whys.items() if why is not None}
    return replace(verdict, way="refused", unknown=unknown) if unknown else verdict


def _tokenizers(large: ModelFacts, small: ModelFacts) -> str | None:
    if large.vocabulary != small.vocabulary:
        different = large.vocabulary.items() ^ small.vocabulary.items()
        return f"{len(different)} vocabulary entries, e.g. {sorted(different)[:3]}"
    if large.encoded != small.encoded:
        return f"they encode {_TEXT!r} differently"
    return None


def _templates(large: ModelFacts, small: ModelFacts) -> str | None:
    if large.rendered == small.rendered:
        return None
    return f"they render a conversation as {large.rendered!r} and {small.rendered!r}"


def _formats(large: ModelFacts, small: ModelFacts) -> str | None:
    return None if large.format == small.format else f"{large.format} and {small.format}"


def _tilings(large: ModelFacts, small: ModelFacts) -> str | None:
    if large.vision == small.vision:
        return None
    if not large.vision.keys() & small.vision.keys():
        return f"{large.architecture} and {small.architecture} each have a way of their own"
    names = {**large.vision, **small.vision}
    pairs = {name: (large.vision.get(name), small.vision.get(name)) for name in names}
    return f"(large, small): { {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} }"


def _rendered(tokenizer: Any) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        rendered: str = tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=True)
        return rendered
    except TemplateError as error:  # a template may refuse, such as a system message
        return f"{type(error).__name__}: {error}"


def _read(which: str, model: ModelConfig) -> ModelFacts:
    architecture = known_architecture(model.hf_config.architectures)
    assert architecture is not None, model.hf_config.architectures
    try:
        vision = family_of(model).vision_facts(model)
        return read_facts(model, architecture, prompt_format(model.hf_config), vision)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # as transformers happens to fail
        raise ValueError(
            f"{which} {model.model}: its tokenizer or image processor cannot be read ({error}): mend or "
            "fetch those files again, or choose another model"
        ) from error
