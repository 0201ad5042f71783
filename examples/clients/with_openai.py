"""The openai SDK: chat, a chat stream, and the Responses API."""

from collections.abc import Sequence

import openai

from .question import asked, of_headers, show


def main(arguments: Sequence[str] | None = None) -> None:
    question = asked(__doc__, arguments)
    client = openai.OpenAI(base_url=question.api, api_key="none")
    chat = {"model": question.model, "messages": question.messages, "max_tokens": 16, "temperature": 0}

    # One request's own settings; without vllm_xargs the server's (or the profile's) hold.
    reply = client.chat.completions.create(**chat, extra_body={"vllm_xargs": {"sgl_retention": 0.35}})
    show("chat", reply.choices[0].message.content, reply.sgl)

    raw = client.chat.completions.with_raw_response.create(**chat)
    show("chat, headers", raw.parse().choices[0].message.content, of_headers(raw.headers))

    with client.chat.completions.stream(**chat) as stream:
        whole = stream.until_done().get_final_completion()
    show("chat stream", whole.choices[0].message.content, whole.sgl)

    parts = [
        {"type": "input_image", "image_url": question.image_url, "detail": "auto"},
        {"type": "input_text", "text": question.text},
    ]
    responses = {
        "model": question.model,
        "input": [{"role": "user", "content": parts}],
        "max_output_tokens": 16,
        "temperature": 0,
    }
    response = client.responses.create(**responses)
    show("response", response.output_text, response.sgl)

    with client.responses.stream(**responses) as stream:
        response = stream.get_final_response()
    show("response stream", response.output_text, response.sgl)


if __name__ == "__main__":
    main()
