"""The values that pass between rooms. Importable without torch and without vLLM."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams
    from vllm.inputs import MultiModalInput

    from vllm_sgl.config import QueryRows

#: A prompt as vLLM's renderer hands it to an engine.
RenderedPrompt: TypeAlias = "MultiModalInput"
#: One ascending int64 tensor of kept indices per item, relative to the item's own visual tokens.
Kept: TypeAlias = "Sequence[torch.Tensor]"
Decision = Literal["bypass", "exit", "prune"]


@dataclass(frozen=True)
class Late:
    """Visual tokens that a later turn added. They stand in front of its question, at original positions.

    number: of the item that they belong to, in prompt order.
    at: of the unpruned prompt, the token in front of which they stand.
    indices: ascending int64, relative to the item's own visual tokens.
    """

    number: int
    at: int
    indices: "torch.Tensor"


class Reason:
    """Why a request was bypassed, or why it did not exit. These strings are part of the contract."""

    # bypass: the small model never runs
    DISABLED = "disabled"
    NO_IMAGE = "no_image"
    UNSUPPORTED_MODALITY = "unsupported_modality"
    IMAGE_EMBEDDINGS = "image_embeddings"
    PROMPT_LOGPROBS = "prompt_logprobs"
    BEAM_SEARCH = "beam_search"
    UNRENDERED_PROMPT = "unrendered_prompt"
    TOO_LONG = "too_long_for_small"
    NO_CONVERSATION = "no_conversation"
    UUID_ALONE = "uuid_alone"
    OTHER_TILING = "other_tiling"
    NOTHING_TO_DO = "retention_1_without_exit"
    BREAK_EVEN = "below_break_even"
    # bypass or prune: what the large model was given of these images before, it is given again
    FOLLOW_UP = "follow_up"
    HOT_IMAGE = "hot_image"
    # bypass: the small model failed, or may not be asked now
    GUIDE_FAILED = "guide_failed"
    GUIDE_DEAD = "guide_dead"
    GUIDE_TIMEOUT = "guide_timeout"
    GUIDE_BUSY = "guide_busy"
    GUIDE_UNWELL = "guide_unwell"
    GUIDE_REFUSED = "guide_refused"
    # no exit: the request rules it out
    N = "n"
    LOGPROBS = "logprobs"
    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured_output"
    LORA = "lora"
    TOKEN_IDS = "token_ids"
    SAMPLING = "sampling"
    UNSEEN = "unseen"
    # no exit: the small model's answer does
    UNFINISHED = "unfinished"
    FORCED_LENGTH = "forced_length"
    REASONING = "reasoning"
    LOW_CONFIDENCE = "low_confidence"
    LOW_SCORE = "low_score"


@dataclass(frozen=True)
class VisualItem:
    """One image or video of a prompt.

    modality: vLLM's name for its kind.
    visual_tokens: how many of its placeholder's positions are visual tokens.
    tile_tokens: visual tokens of each of its tiles, where tiles are encoded one by one and their tokens
        follow one another; None where it is encoded as a whole.
    least: the fewest visual tokens to keep: 1 if its placeholder has no marker tokens (an engine cannot take
        an empty placeholder), else 0.
    rest: visual tokens behind its last tile's, which are not encoded.
    """

    modality: str
    visual_tokens: int
    tile_tokens: int | None = None
    least: int = 0
    rest: int = 0

    @property
    def per_tile(self) -> int:
        """Visual tokens of a tile; an item that is encoded as a whole is one tile."""
        return self.tile_tokens or max(1, self.visual_tokens)

    @property
    def tiles(self) -> int:
        """How many tiles it has."""
        return -(-(self.visual_tokens - self.rest) // self.per_tile)

    def open_tiles(self, kept: "torch.Tensor") -> "torch.Tensor":
        """The tiles that some of its visual tokens are in: ascending int64 numbers."""
        return open_tiles(kept, self.per_tile, self.tiles)


def open_tiles(kept: "torch.Tensor", per_tile: int, tiles: int) -> "torch.Tensor":
    """The tiles, of ``tiles`` with ``per_tile`` visual tokens each, that some kept visual tokens are in:
    ascending int64 numbers. Visual tokens behind the last tile are in none."""
    numbers: torch.Tensor = (kept // per_tile).unique()
    return numbers[numbers < tiles]


@dataclass(frozen=True)
class Seen:
    """An item and its importance to the guide. importance: float32 [visual tokens]."""

    item: VisualItem
    importance: "torch.Tensor"


@dataclass(frozen=True)
class Facts:
    """What the decision needs to know about a request, read once.

    visual_tokens: number of visual tokens per image, in prompt order.
    prompt_tokens: length of the rendered prompt.
    max_tokens: the most tokens the request may generate, None for no limit.
    forced_tokens: the minimum length of the answer, which the client forces (``min_tokens``; max_tokens under
        ``ignore_eos``).
    bypass: the reason to skip the guide, if there is one.
    no_exit: the reason that rules an early exit out, if there is one.
    tiles: how many tiles the images have, all together; one that is encoded as a whole counts as one.
    items: the images and videos themselves, as far as they were read.
    seen_tokens: visual tokens that the guide's model is given; None for as many as the large model's.
    known_items: how many of the first items are not decided anew: the large engine is given them as before,
        or whole because they are hot.
    known_tokens: how many of the prompt's first tokens are in the large engine's prefix cache, as it was
        given them before.
    is_content: whether a client would find an answer, by its text and token ids, in a response's content, and
        not in what the model thought; None where that is so of every answer.
    """

    visual_tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0
    max_tokens: int | None = None
    forced_tokens: int = 0
    bypass: str | None = None
    no_exit: str | None = None
    tiles: int = 0
    items: tuple[VisualItem, ...] = ()
    seen_tokens: int | None = None
    known_items: int = 0
    known_tokens: int = 0
    is_content: "Callable[[str, Sequence[int]], bool] | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class GuideRequest:
    """A request for a guide.

    prompt: the one that vLLM rendered for the large model.
    items: its images and videos, in prompt order.
    params: the client's own, but for what forces an answer on past its end. max_tokens: the most tokens that
        the client allows.
    query_rows: which rows of attention count for importance.
    lora: the name of its adapter of the large model, None without one.
    """

    id: str
    prompt: RenderedPrompt
    items: tuple[VisualItem, ...]
    params: "SamplingParams"
    max_tokens: int
    query_rows: "QueryRows"
    priority: int = 0
    lora: str | None = None

    @property
    def visual_tokens(self) -> tuple[int, ...]:
        """Visual tokens of each item."""
        return tuple(item.visual_tokens for item in self.items)


@dataclass(frozen=True)
class Answer:
    """The small model's greedy answer.

    token_ids: in the large model's vocabulary, the end token included.
    logprobs: of each token that the small model generated; as many as token_ids where both models have one
        vocabulary.
    finished: the answer ended by itself, or is as long as the request's own max_tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    finish_reason: str | None
    stop_reason: int | str | None = None


@dataclass(frozen=True)
class GuideResult:
    """importance: one float32 tensor [visual tokens] per item, in prompt order (see method in
    :mod:`vllm_sgl.guide.local.recorder`)."""

    importance: "Sequence[torch.Tensor]"
    answer: Answer


@dataclass
class Report:
    """The ``sgl`` object of a response. Offline it also carries the lists of tensors.

    answer: the small model's own, whatever was decided; None where it was not asked. It stays here.

    encoded_tiles: those of which something is kept, so that the large model's vision encoder needs them (it
        may know their features from an earlier question).
    reused_tokens: visual tokens among the kept ones that earlier requests about the same images were given.
    late_tokens: visual tokens among the kept ones that this request added to these.
    profile: the one whose settings the request had, None without one.
    """

    decision: Decision
    reason: str | None = None
    visual_tokens: int = 0
    kept_tokens: int = 0
    tiles: int = 0
    encoded_tiles: int = 0
    reused_tokens: int = 0
    late_tokens: int = 0
    score: float | None = None
    confidence: float | None = None
    consistency: float | None = None
    guide_seconds: float | None = None
    profile: str | None = None
    importance: "Sequence[torch.Tensor] | None" = field(default=None, repr=False)
    kept: "Kept | None" = field(default=None, repr=False)
    late: Sequence[Late] = field(default=(), repr=False)
    answer: "Answer | None" = field(default=None, repr=False)

    def in_all(self) -> "Kept":
        """Of each item, the indices of all its tokens that the large model is given, late ones too."""
        import torch

        parts = [[indices] for indices in self.kept or ()]
        for one in self.late:
            parts[one.number].append(one.indices)
        return [torch.cat(of).sort().values if len(of) > 1 else of[0] for of in parts]

    def without_tensors(self) -> "Report":
        """A copy without tensors, which are nearly all of its size and which only Python can use."""
        return replace(self, importance=None, kept=None, late=())

    def as_dict(self) -> Mapping[str, str | int | float | None]:
        """The values that go over the wire: everything but the tensors and the small model's answer. JSON has
        no other numbers than finite ones."""
        values = {name: getattr(self, name) for name in WIRE_FIELDS}
        return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in values.items()}


WIRE_FIELDS = tuple(f.name for f in fields(Report) if f.name not in ("importance", "kept", "late", "answer"))


@dataclass(frozen=True)
class Outcome:
    """The decision about a request: the report, and what the large engine gets.

    answer: the small model's, for an exit; the large model does not run.
    prompt: replaces the prompt for the large model; None if that stays as it is.
    max_tokens: of a pruned prompt, the room for an answer that the unpruned one leaves.
    heard: takes how many tokens the large engine found in its prefix cache; None where that tells nothing.
    """

    report: Report
    answer: Answer | None = None
    prompt: "RenderedPrompt | None" = None
    max_tokens: int | None = None
    heard: Callable[[int], None] | None = None
