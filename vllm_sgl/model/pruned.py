"""Adds to a vision-language model of vLLM what every SGL variant needs: kept features, original positions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

from vllm_sgl.host.start import encoder
from vllm_sgl.host.worker import weights
from vllm_sgl.kernels.gather_visual import gather_visual, warm_up
from vllm_sgl.model.encoding import batch_items, encoded
from vllm_sgl.model.feature_cache import FeatureCache
from vllm_sgl.visual.fields import FIELDS, ITEM, LENGTH, OF, PLACES, TILES

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.model_executor.models.interfaces:SupportsMRoPE.supports_mrope",
    "vllm.model_executor.models.interfaces:SupportsMRoPE.get_mrope_input_positions"
    "(input_tokens, mm_features)",
)


def whole_mask(place: PlaceholderRange, item: Mapping[str, Any] | None) -> torch.Tensor | None:
    """Which positions of an item's unpruned placeholder are visual tokens, bool [length]; None for all.

    Args:
        place: the placeholder as it is now.
        item: the item's fields. Where it has none of :mod:`vllm_sgl.visual.fields`, nothing is pruned.
    """
    now: torch.Tensor | None = place.is_embed
    if now is None or item is None or PLACES not in item:
        return now
    mask = torch.ones(int(item[LENGTH].data), dtype=torch.bool)  # every position that was dropped is visual
    mask[item[PLACES].data] = now
    return mask


class Pruned:
    """Mixin, first in the bases: ``class SGLTheModel(Pruned, TheModel)``."""

    #: vLLM's marker for models that place their own position ids (``SupportsMRoPE``).
    supports_mrope = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        if vllm_config.compilation_config.cudagraph_mm_encoder:
            raise RuntimeError("encoder CUDA graphs bypass pruning: adapt vllm_sgl/host/start/encoder.py")
        weights.watch(vllm_config)
        self._features = FeatureCache(encoder.feature_cache_bytes(vllm_config))
        #: Visual tokens that one call of the encoder gives at most, as many as start-up profiled.
        self._most_rows = encoder.profiled_tokens(vllm_config)
        #: Hidden size and dtype of features.
        self._width = vllm_config.model_config.get_inputs_embeds_size()
        self._dtype = vllm_config.model_config.dtype
        # Not when vLLM profiles: that can be turned off, and no request should wait for a compiler.
        warm_up(self._width, self._dtype, torch.device(vllm_config.device_config.device_type))
        #: Whether the model places position ids in more than one dimension by itself.
        self._own_positions = hasattr(super(), "get_mrope_input_positions")

    def forget_features(self) -> None:
        """Encode every tile anew: the weights are others now."""
        self._features.clear()

    def tile_counts(self, said: Sequence[int | None], **kwargs: Any) -> list[int]:
        """How many tiles of each item of a batch are there; an item that is encoded as a whole is one.

        Args:
            said: as many as the prompt was rewritten for; None for all of them.
            kwargs: the model's own keyword arguments.
        """
        return [1] * len(said)

    def pick(self, which: Sequence[int], counts: Sequence[int], **kwargs: Any) -> dict[str, object]:
        """The model's own keyword arguments for some of a batch's tiles, as items of one tile each.

        Args:
            which: ascending numbers of tiles, counted on from item to item.
            counts: as :meth:`tile_counts` returned them.
        """
        raise NotImplementedError

    def rest(self, **kwargs: Any) -> torch.Tensor:
        """Features [r, hidden] behind the last tile's of every item of a batch, which need no pixels; after
        a tile, :meth:`encode` gives them too. None here.

        Args:
            kwargs: the model's own keyword arguments.
        """
        device = next(self.parameters()).device  # type: ignore[attr-defined]
        return torch.empty(0, self._width, dtype=self._dtype, device=device)

    def encode(self, **kwargs: object) -> Sequence[torch.Tensor]:
        """Features of each item of a batch, [visual tokens, hidden] each: the model's own encoder."""
        features: Sequence[torch.Tensor] = super().embed_multimodal(**kwargs)  # type: ignore[misc]
        return features

    def embed_multimodal(self, **kwargs: Any) -> Sequence[torch.Tensor]:
        """Kept vision features of each item of a batch; the encoder runs only for tiles not seen lately.

        vLLM's scheduler counts an item by its kept visual tokens, so a step may bring many more tiles than
        start-up profiled: they are encoded a bounded number at a time.

        Keyword arguments are the model's own plus the fields of :mod:`vllm_sgl.visual.fields`.

        Raises:
            RuntimeError: where features are not those that the prompt was rewritten for.
        """
        fields = {name: kwargs.pop(name, None) for name in FIELDS}
        if fields[ITEM] is None:  # vLLM's own images at start, or a request that is not guided
            return self.encode(**kwargs)
        said = [None] * len(fields[ITEM]) if fields[TILES] is None else [len(t) for t in fields[TILES]]
        counts, rest = self.tile_counts(said, **kwargs), self.rest(**kwargs)
        items = batch_items(fields, counts, len(rest))

        def encode(which: Sequence[int]) -> Sequence[torch.Tensor]:
            found = self.encode(**self.pick(which, counts, **kwargs))
            return [features[: len(features) - len(rest)] for features in found] if len(rest) else found

        there = encoded(items, encode, self._features, self._most_rows, rest)
        return [
            features if item.kept is None else gather_visual(features, item.kept)
            for item, features in zip(items, there, strict=True)
        ]

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Original position ids of a (pruned) prompt: kept tokens keep theirs, what follows continues
        from the unpruned length (arXiv 2412.03324, section 3.2).

        The model is asked for the positions of the whole prompt, and the columns of what is left of it are
        picked: a range for models whose positions have one dimension, the model's own for the others.

        Returns:
            positions: int64 [3, tokens].
            delta: what decode adds to a sequence index.
        """
        columns: list[torch.Tensor] = []
        tokens: list[torch.Tensor] = []
        whole: list[MultiModalFeatureSpec] = []
        given = torch.tensor(input_tokens)
        starts: list[int] = []  # of each item in the whole prompt
        begin = origin = 0  # in the pruned prompt, and in the whole one

        def take(inside: torch.Tensor, ids: torch.Tensor) -> None:
            """The next tokens: where they are in a stretch of the whole prompt, and that stretch's ids."""
            nonlocal begin, origin
            ids[inside] = given[begin : begin + len(inside)]
            columns.append(origin + inside)
            tokens.append(ids)
            begin, origin = begin + len(inside), origin + len(ids)

        def take_all(length: int) -> None:
            take(torch.arange(length), torch.empty(length, dtype=torch.int64))

        for feature in sorted(mm_features, key=lambda f: f.mm_position.offset):
            place, item = feature.mm_position, feature.data
            take_all(place.offset - begin)
            if item is not None and OF in item:  # late tokens stand elsewhere in the whole prompt
                columns.append(starts[int(item[OF].data)] + item[PLACES].data)
                begin += place.length
                continue
            starts.append(start := origin)
            if item is not None and PLACES in item:
                take(
                    item[PLACES].data, torch.full((int(item[LENGTH].data),), self._token_of(feature.modality))
                )
            else:
                take_all(place.length)
            position = PlaceholderRange(offset=start, length=origin - start, is_embed=whole_mask(place, item))
            whole.append(replace(feature, mm_position=position))
        take_all(len(input_tokens) - begin)
        positions, delta = self._whole_positions(torch.cat(tokens).tolist(), whole)
        return positions[:, torch.cat(columns)].contiguous(), delta + origin - len(input_tokens)

    def _token_of(self, modality: str) -> int:
        """The id that stands for a visual token in a prompt; 0 where the config does not tell."""
        token: int = getattr(self.config, f"{modality}_token_id", 0)  # type: ignore[attr-defined]
        return token

    def _whole_positions(
        self, tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """[3, tokens] and delta, of a prompt of which nothing is missing."""
        if not self._own_positions:
            return torch.arange(len(tokens)).expand(3, -1), 0
        positions, delta = super().get_mrope_input_positions(tokens, mm_features)  # type: ignore[misc]
        return positions, delta

    def forward(
        self, input_ids: torch.Tensor | None, positions: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        # With original positions the runner carries three rows. Where the model's own are 1-D they are equal.
        if positions.dim() == 2 and not self._own_positions:
            positions = positions[0]
        return super().forward(input_ids, positions, *args, **kwargs)  # type: ignore[misc]
