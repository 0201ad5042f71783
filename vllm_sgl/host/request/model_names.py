"""A request's model name: which one it was, and which one the answer carries.

Symptom without it: vLLM checks a request's name against ``--served-model-name`` and drops it; neither the
engine client nor the answer, which carries the first served name, knows which it was. Remove when an engine
request has the name.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing

from vllm_sgl.host.patch import wrap

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = ("vllm.entrypoints.openai.models.serving:OpenAIServingModels.base_model_paths",)

_FIX = "vllm_sgl/host/request/model_names.py"


def install(note: Callable[[str | None, Collection[str]], None], answered: Callable[[], str | None]) -> None:
    """Tell of the names that requests ask for; idempotent.

    note: is given a request's name, None without one, and the names that the server answers to, before the
    request is refused or goes on. answered: the name that the answer to the request at hand is to carry, None
    for vLLM's; an adapter's answer carries the adapter's.
    """
    wrap(BaseServing, "_check_model", ("self", "request"), _FIX, partial(_noting, note))
    wrap(OpenAIServingModels, "model_name", ("self", "lora_request"), _FIX, partial(_answering, answered))


def _noting(note: Callable[[str | None, Collection[str]], None], check_model: Any) -> Any:
    async def check_model_and_note(self: BaseServing, request: Any) -> Any:
        note(request.model, [model.name for model in self.models.base_model_paths])
        return await check_model(self, request)

    return check_model_and_note


def _answering(answered: Callable[[], str | None], model_name: Any) -> Any:
    def model_name_or_asked(self: OpenAIServingModels, lora_request: Any = None) -> Any:
        return (None if lora_request is not None else answered()) or model_name(self, lora_request)

    return model_name_or_asked
