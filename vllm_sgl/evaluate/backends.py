"""Where requests are answered: both engines in this process, or a running server."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.request import urlopen

from vllm_sgl.evaluate.errors import UsageError

if TYPE_CHECKING:
    from vllm_sgl.decide.costs import Costs


class Ask(Protocol):
    """One request."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """An OpenAI conversation."""
        ...

    @property
    def xargs(self) -> dict[str, Any]:
        """The request's ``sgl_*`` keys, and those that a wrapped guide reads."""
        ...

    @property
    def max_tokens(self) -> int:
        """The longest answer."""
        ...


@dataclass(frozen=True)
class Reply:
    """sgl: the response's ``sgl`` object, None from a server that has none."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    sgl: dict[str, Any] | None


class Backend(Protocol):
    """Something that answers."""

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """Greedy answers, in order; all may be in flight at once."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


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

        # A failing guide, or one that does not pay, would turn a pruned answer into a full one, and a known
        # image would be kept as another question had it.
        settings = {
            "sgl_on_error": "fail", "sgl_break_even": "off", "sgl_follow_ups": "off", "sgl_small": small,
            **arguments,
        }  # fmt: skip
        self._llm = LLM(large, wrap_guide=wrap_guide, **settings)

    @property
    def costs(self) -> "Costs | None":
        """What both models' passes take, where the settings ask for it; after the first answer."""
        found: Costs | None = self._llm.llm_engine.costs
        return found

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
                sgl=dict(output.sgl.as_dict()),
            )
            for output in outputs
        ]

    def close(self) -> None:
        self._llm.shutdown()


class Endpoint:
    """An OpenAI-compatible server, which is asked to decide every request by itself; fields that it does not
    know (``vllm_xargs``) it must ignore.

    Args:
        base_url: such as http://localhost:8000/v1.
        model: its name there; a server with one model needs not know it by this name.
    """

    def __init__(self, base_url: str, model: str | None) -> None:
        import openai

        self._url = base_url
        self._client = openai.OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
        try:
            served = [entry.id for entry in self._client.models.list()]
        except openai.OpenAIError as error:
            raise UsageError(
                f"--base-url {base_url}: no OpenAI-compatible server there ({error}); expected an address "
                "such as http://localhost:8000/v1"
            ) from None
        # MODEL:PROFILE is MODEL under other settings.
        base = [one for one in served if not any(one.startswith(f"{other}:") for other in served)]
        if model not in served and len(base) != 1:
            raise UsageError(f"--base-url {base_url}: expected a server of {model}, it serves {served}")
        self.model = model if model in served else base[0]

    def refuse_other_than_guided(self) -> None:
        """Raise where answers would not be those of SGL.

        Raises:
            UsageError: for a server without SGL, or one in shadow mode.
        """
        with urlopen(self._url.rstrip("/").removesuffix("/v1") + "/health", timeout=60) as response:
            headers = response.headers
        if "sgl-guide" not in headers:
            raise UsageError(
                f"--base-url {self._url}: the server runs without SGL; start it with --sgl-small"
            )
        if headers.get("sgl-shadow") == "on":
            raise UsageError(
                f"--base-url {self._url}: the server runs with --sgl-shadow, so every answer is the large "
                "model's own. Start it without, or give its --sgl-shadow-log to --log"
            )

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(self._one, asks))

    def close(self) -> None:
        self._client.close()

    def _one(self, ask: Ask) -> Reply:
        messages: Any = ask.messages
        response = self._client.chat.completions.create(
            model=str(self.model),
            messages=messages,
            temperature=0,
            max_tokens=ask.max_tokens,
            extra_body={"vllm_xargs": {"sgl_follow_ups": "off", **ask.xargs}},
        )
        usage = response.usage
        return Reply(
            text=response.choices[0].message.content or "",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            answer_tokens=usage.completion_tokens if usage else 0,
            sgl=(response.model_extra or {}).get("sgl"),
        )
