"""Where requests are answered: both engines in this process, or a running server."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from .asking import Ask, Reply
from .errors import UsageError


class Backend(Protocol):
    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """Greedy answers, in order; all may be in flight at once."""
        ...

    def close(self) -> None: ...


class Engines:
    """``vllm_sgl.LLM``: the server's own path, without HTTP.

    Args:
        wrap_guide: see :class:`vllm_sgl.LLM`.
        arguments: any other argument of it.
    """

    def __init__(
        self, large: str, small: str, wrap_guide: Callable[..., Any], arguments: dict[str, Any]
    ) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read once; the progress bar has the line
        from vllm_sgl import LLM

        # A failing guide, or one that does not pay, would turn a pruned answer into a full one.
        settings = {"sgl_on_error": "fail", "sgl_break_even": "off", "sgl_small": small, **arguments}
        self._llm = LLM(large, wrap_guide=wrap_guide, **settings)

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        from vllm import SamplingParams

        params = [
            SamplingParams(temperature=0, max_tokens=ask.max_tokens, extra_args=ask.xargs) for ask in asks
        ]
        outputs = self._llm.chat([ask.messages for ask in asks], params, use_tqdm=False)
        return [
            Reply(
                text=output.outputs[0].text,
                prompt_tokens=len(output.prompt_token_ids),
                answer_tokens=len(output.outputs[0].token_ids),
                sgl=output.sgl.as_dict(),
            )
            for output in outputs
        ]

    def close(self) -> None:
        self._llm.shutdown()


class Endpoint:
    """An OpenAI-compatible server; fields that it does not know (``vllm_xargs``) it must ignore.

    Args:
        base_url: such as http://localhost:8000/v1.
        model: its name there; a server with one model needs not know it by this name.
    """

    def __init__(self, base_url: str, model: str) -> None:
        import openai

        self._client = openai.OpenAI(base_url=base_url, api_key="none")
        try:
            served = [entry.id for entry in self._client.models.list()]
        except openai.OpenAIError as error:
            raise UsageError(
                f"--base-url {base_url}: no OpenAI-compatible server there ({error}); expected an address "
                "such as http://localhost:8000/v1"
            ) from None
        if model not in served and len(served) != 1:
            raise UsageError(f"--base-url {base_url}: expected a server of {model}, it serves {served}")
        self._model = model if model in served else served[0]

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(self._one, asks))

    def close(self) -> None:
        self._client.close()

    def _one(self, ask: Ask) -> Reply:
        response = self._client.chat.completions.create(
            model=self._model,
            messages=ask.messages,
            temperature=0,
            max_tokens=ask.max_tokens,
            extra_body={"vllm_xargs": ask.xargs},
        )
        return Reply(
            text=response.choices[0].message.content or "",
            prompt_tokens=response.usage.prompt_tokens,
            answer_tokens=response.usage.completion_tokens,
            sgl=(response.model_extra or {}).get("sgl"),
        )
