"""The worker extension of the small engine: listens to attention and returns sums on request.

Loaded through vLLM's ``worker_extension_cls``; the methods are called with ``collective_rpc``.
"""

from functools import partial
from typing import Any

from vllm_sgl.guide.local.recorder import Recorder, Tracked, lanes
from vllm_sgl.kernels.attention_mass import warm_up

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = ("vllm.v1.worker.worker_base:WorkerBase.model_runner",)

#: Keys in a guide request's ``extra_args``: its name for the recorder, and start and stop of the range of
#: query rows that count.
TRACK_KEY = "sgl_track"
ROWS_KEY = "sgl_rows"


class GuideWorkerExtension:
    """Mixed into vLLM's worker. Every name starts with ``sgl_``, so that none collides."""

    def sgl_install(self) -> dict[str, Any]:
        """Start listening. Returns the numbers of this worker's ``layers`` that are read, ``of`` how many,
        and attention ``heads`` per layer.

        Raises:
            NotImplementedError: for an attention backend, KV cache or model runner that cannot be read.
        """
        from vllm_sgl.host.worker import attention
        from vllm_sgl.host.worker.runner import batch_view

        runner = self.model_runner  # type: ignore[attr-defined]
        layers = attention.decoder_layers(runner)
        attention.use_readable_layout(runner)
        self._sgl_recorder = Recorder()
        self._sgl_view = batch_view(runner)
        compiled = set()
        for layer in layers:
            keys = attention.key_cache_view(layer, layer.kv_cache)  # refuse now, not in a request
            attention.listen(layer, self._sgl_listen)
            variant = (keys.shape[1:], keys.stride(), keys.dtype, layer.num_heads)
            if variant not in compiled:  # now, and not when the load first changes
                compiled.add(variant)
                warm_up(keys, layer.num_heads, lanes(keys.device))
        numbers, every = attention.layer_numbers(runner, layers)
        return {"layers": numbers, "of": every, "heads": layers[0].num_heads}

    def sgl_take(self, keys: list[str]) -> list[dict[str, Any] | None]:
        """Hand out and forget finished requests: mass as float32 bytes, counted rows, total mass."""
        return [
            entry and {"mass": entry.mass.numpy().tobytes(), "rows": entry.rows, "total": entry.total}
            for entry in self._sgl_recorder.take(keys)
        ]

    def _sgl_listen(self, layer: Any, query: Any, kv_cache: Any, metadata: Any) -> None:
        from vllm_sgl.host.worker.attention import key_cache_view

        recorder = self._sgl_recorder
        if not recorder.is_current(metadata):
            self._sgl_begin(metadata, query.device)
        recorder.add_layer(
            query.view(-1, layer.num_heads, layer.head_size),
            key_cache_view(layer, kv_cache),
            metadata.block_table,
            metadata.seq_lens,
            metadata.query_start_loc,
            layer.impl.scale,
        )

    def _sgl_begin(self, metadata: Any, device: Any) -> None:
        from vllm_sgl.visual.items import visual_positions

        recorder, batch = self._sgl_recorder, self._sgl_view.batch()
        tracked: list[Tracked | None] = []
        for owner in batch.owners:
            key = owner.extra_args.get(TRACK_KEY)
            if key is None:
                tracked.append(None)
                continue
            positions = partial(visual_positions, owner.placeholders)
            tracked.append(recorder.track(key, positions, range(*owner.extra_args[ROWS_KEY]), device))
        recorder.begin(metadata, tracked, batch.query_lens, batch.seq_lens, device)
