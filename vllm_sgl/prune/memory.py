"""Memory of what the large model was given lately, so that a follow-up finds it in the prefix cache.

A follow-up keeps, of every image that its prompt shares with an earlier one, the visual tokens that were kept
then: same tokens, same hashes, same blocks. An entry stands under a digest of a *beginning* of an unpruned
prompt: its token ids, its images and videos by hash and place, the cache salt, the adapter and the settings
that shaped the mask. Nobody reaches an entry without sending that whole beginning.

It is a memo, bounded, and one server process's own: what is missing is decided afresh. It holds indices on
the CPU and no pixels. Imports neither torch nor vLLM.
"""

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_sgl.core import GuideRequest, Kept, Late, RenderedPrompt, VisualItem

if TYPE_CHECKING:
    import torch

#: Whatever of a request's settings shapes a mask.
Settings = tuple[object, ...]
#: Of a prompt, in its order: where an item starts, how long it is, its modality and its hash.
_Item = tuple[int, int, str, str]


@dataclass(frozen=True)
class Plan:
    """What the large model was given of the images and videos of a prompt.

    kept: per item, in prompt order, ascending int64 indices of its visual tokens; None for a whole item.
    late: visual tokens that later turns added.
    """

    kept: "tuple[torch.Tensor | None, ...]"
    late: tuple[Late, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return all(indices is None for indices in self.kept)


@dataclass(frozen=True)
class Recalled:
    """A plan, and how much of a prompt it covers.

    length: tokens of the unpruned prompt that are those of the earlier one.
    images_end: one past the last item's placeholder in the new prompt.
    follows: whether these reach past the last item, so that the prompt goes on from an earlier one;
        otherwise it asks something else about the same images.
    key: the entry's, empty where this was decided just now.
    at: where late tokens may stand in the unpruned prompt; None where none are wanted.
    """

    plan: Plan
    length: int
    images_end: int
    follows: bool
    key: bytes
    at: int | None = None


class Memory:
    """Plans by beginnings of prompts; the least recently used are forgotten.

    Args:
        most: entries at most; one prompt takes two to four, which share a plan of up to 10 KB.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        #: What each entry is about, for the table of lengths.
        self._about: dict[bytes, tuple[_Item, int]] = {}
        #: Lengths of beginnings that are known, by the first item.
        self._lengths: dict[_Item, Counter[int]] = {}
        #: How often the guide looked at separate questions about the same images.
        self._looks: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def recall(self, request: GuideRequest, settings: Settings) -> Recalled | None:
        """The plan of the longest known beginning of a request's prompt, if there is one."""
        items = _items(request.prompt)
        known = self._lengths.get(items[0]) if items else None
        found = None
        for length, digest in _digests(request.prompt, items, known or ()):
            for scope in (_scope(request), _scope(request, settings)):
                key = digest + scope
                if (plan := self._plans.get(key)) is not None:
                    offset, size, *_ = _inside(items, length)[-1]
                    found = Recalled(plan, length, sum(items[-1][:2]), length > offset + size, key)
                    break  # what is whole serves every setting
        if found is not None:
            self._plans.move_to_end(found.key)
        return found

    def remember(self, request: GuideRequest, settings: Settings, plan: Plan) -> None:
        """Note what the large model is given of a request: under its whole prompt, and under beginnings that
        end with an item or where late tokens stand, unless something is known of these."""
        items, end = _items(request.prompt), len(request.prompt["prompt_token_ids"])
        scope = _scope(request) if plan.whole else _scope(request, settings)
        ends = (offset + length for offset, length, *_ in items)
        lengths = {*ends, *(one.at for one in plan.late), end}
        for length, digest in _digests(request.prompt, items, lengths):
            key = digest + scope
            if length == end or key not in self._plans:
                late = tuple(one for one in plan.late if one.at <= length)
                self._put(key, items[0], length, Plan(plan.kept[: len(_inside(items, length))], late))

    def forget(self, recalled: Recalled) -> None:
        """Drop an entry whose tokens the prefix cache has no longer; questions are counted anew."""
        self._drop(recalled.key)
        self._looks.pop(recalled.key, None)

    def images_key(self, request: GuideRequest, settings: Settings | None = None) -> bytes:
        """What names the beginning of a prompt up to its last item's end, as its entry does."""
        items = _items(request.prompt)
        ((_, digest),) = _digests(request.prompt, items, [sum(items[-1][:2])])
        return digest + _scope(request, settings)

    def look(self, request: GuideRequest) -> int:
        """Count one more look at the images and videos of a prompt; returns how many there were."""
        key = self.images_key(request)
        self._looks[key] = self._looks.pop(key, 0) + 1
        if len(self._looks) > self._most:
            self._looks.popitem(last=False)
        return self._looks[key]

    def _put(self, key: bytes, first: _Item, length: int, plan: Plan) -> None:
        if key not in self._plans:
            self._about[key] = first, length
            self._lengths.setdefault(first, Counter())[length] += 1
        self._plans[key] = plan
        self._plans.move_to_end(key)
        while len(self._plans) > self._most:
            self._drop(next(iter(self._plans)))

    def _drop(self, key: bytes) -> None:
        if self._plans.pop(key, None) is None:
            return
        first, length = self._about.pop(key)
        lengths = self._lengths[first]
        lengths[length] -= 1
        if not lengths[length]:
            del lengths[length]
        if not lengths:
            del self._lengths[first]


def indices_of(items: Sequence[VisualItem], kept: "Sequence[torch.Tensor | None]") -> Kept:
    """The kept indices of each item, where None stands for all of them."""
    import torch

    return [
        torch.arange(item.visual_tokens) if indices is None else indices
        for item, indices in zip(items, kept, strict=True)
    ]


def _items(prompt: RenderedPrompt) -> list[_Item]:
    """Of every modality: whatever is in a prompt makes its tokens what they are."""
    return sorted(
        (place.offset, place.length, modality, mm_hash)
        for modality, places in prompt["mm_placeholders"].items()
        for place, mm_hash in zip(places, prompt["mm_hashes"][modality], strict=True)
    )


def _inside(items: list[_Item], length: int) -> list[_Item]:
    """Those that start within the first tokens of a prompt."""
    return [item for item in items if item[0] < length]


def _digests(
    prompt: RenderedPrompt, items: list[_Item], lengths: Iterable[int]
) -> Iterator[tuple[int, bytes]]:
    """Of the beginnings of these lengths, shortest first."""
    ids, done, running = prompt["prompt_token_ids"], 0, hashlib.sha256()
    for length in sorted(lengths):
        if length > len(ids):
            return
        running.update(array("q", ids[done:length]).tobytes())
        done = length
        digest = running.copy()
        digest.update(repr((length, _inside(items, length))).encode())
        yield length, digest.digest()


def _scope(request: GuideRequest, settings: Settings | None = None) -> bytes:
    """Whose entries a request finds: those of its salt and adapter, and of its settings where they count."""
    return hashlib.sha256(repr((request.prompt.get("cache_salt"), request.lora, settings)).encode()).digest()
