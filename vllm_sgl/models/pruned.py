"""What every SGL variant adds to a vision-language model of vLLM: kept features, original positions."""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.multimodal.inputs import MultiModalFeatureSpec

from vllm_sgl.config import SGLConfig
from vllm_sgl.kernels.gather_visual import gather_visual
from vllm_sgl.models.features import FeatureCache
from vllm_sgl.prune.rewrite import IMAGE, KEPT, LENGTH, PLACES


class PrunedImages:
    """Mixin, first in the bases. ``encode_images`` is the model's own encoder.

    Call :meth:`init_pruning` at the end of ``__init__`` and pass ``embed_multimodal``'s keyword
    arguments through :meth:`embed_images`.
    """

    #: vLLM's marker for models that place their own position ids (``SupportsMRoPE``).
    supports_mrope = True
    #: A captured encoder graph would bypass ``embed_multimodal`` and with it the pruning.
    supports_encoder_cudagraph = False

    def init_pruning(self, vllm_config: VllmConfig) -> None:
        config = SGLConfig.of(vllm_config.additional_config)
        self._features = FeatureCache(config.feature_cache if config else 0)

    def encode_images(self, **kwargs: object) -> Sequence[torch.Tensor]:
        """Features of each image of a batch, [visual tokens, hidden] each."""
        raise NotImplementedError

    def pick_images(self, which: Sequence[int], **kwargs: object) -> dict[str, object]:
        """Keyword arguments of some of a batch's images, in the order of ``which``."""
        raise NotImplementedError

    def embed_images(self, **kwargs: Any) -> Sequence[torch.Tensor]:
        """Kept vision features of each image of a batch; the encoder runs only for images not seen lately.

        Keyword arguments are the model's own plus the fields of :mod:`vllm_sgl.prune.rewrite`
        (a batch has all of them or none: vLLM batches items with equal fields).
        """
        names, kept = kwargs.pop(IMAGE, None), kwargs.pop(KEPT, None)
        kwargs.pop(PLACES, None)
        kwargs.pop(LENGTH, None)
        if names is None:
            return self.encode_images(**kwargs)
        keys = [bytes(name.tolist()) for name in names]
        found = {key: self._features.get(key) for key in dict.fromkeys(keys)}
        new = [key for key, features in found.items() if features is None]
        if new:
            which = [keys.index(key) for key in new]
            wanted = kwargs if len(new) == len(keys) else self.pick_images(which, **kwargs)
            for key, features in zip(new, self.encode_images(**wanted), strict=True):
                found[key] = features
                self._features.put(key, features)
        features = [found[key] for key in keys]
        if kept is None:
            return features
        return [gather_visual(f, indices) for f, indices in zip(features, kept, strict=True)]

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Original position ids of a (pruned) prompt: kept tokens keep theirs, what follows continues
        from the unpruned length (arXiv 2412.03324, section 3.2).

        Returns:
            positions: int64 [3, tokens], three equal rows (the model's rotary embedding is 1-D).
            delta: what decode adds to a sequence index.
        """
        parts: list[torch.Tensor] = []
        begin = 0  # index into the pruned prompt
        position = 0  # original position of that index

        def count_up(length: int) -> None:
            nonlocal begin, position
            parts.append(torch.arange(position, position + length))
            begin, position = begin + length, position + length

        for feature in sorted(mm_features, key=lambda f: f.mm_position.offset):
            if feature.data is None or PLACES not in feature.data:
                continue
            place = feature.mm_position
            count_up(place.offset - begin)
            parts.append(position + feature.data[PLACES].data)
            begin += place.length
            position += int(feature.data[LENGTH].data)
        count_up(len(input_tokens) - begin)
        positions = torch.cat(parts)
        return positions.expand(3, -1).contiguous(), position - len(input_tokens)
