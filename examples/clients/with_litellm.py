"""LiteLLM's SDK: a completion and a stream. The proxy passes the same headers on."""

from collections.abc import Sequence

import litellm

from .question import asked, of_headers, show


def main(arguments: Sequence[str] | None = None) -> None:
    question = asked(__doc__, arguments)
    chat = {
        "model": f"hosted_vllm/{question.model}",
        "api_base": question.api,
        "api_key": "none",
        "messages": question.messages,
        "max_tokens": 16,
        "temperature": 0,
    }

    reply = litellm.completion(**chat, extra_body={"vllm_xargs": {"sgl_retention": 0.35}})
    show("completion", reply.choices[0].message.content, _report(reply))

    stream = litellm.completion(**chat, stream=True)
    answer = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    show("stream", answer, _report(stream))


def _report(reply: object) -> dict[str, str]:
    headers = reply._hidden_params["additional_headers"]
    return of_headers(headers, "llm_provider-sgl-")


if __name__ == "__main__":
    main()
