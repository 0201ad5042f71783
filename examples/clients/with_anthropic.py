"""The anthropic SDK: messages and a stream of one (``/v1/messages``)."""

from collections.abc import Sequence

import anthropic

from .question import asked, of_headers, show


def main(arguments: Sequence[str] | None = None) -> None:
    question = asked(__doc__, arguments)
    client = anthropic.Anthropic(base_url=question.server, api_key="none")
    source = {"type": "base64", "media_type": question.image_type, "data": question.image_base64}
    content = [{"type": "image", "source": source}, {"type": "text", "text": question.text}]
    messages = {
        "model": question.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 16,
        "extra_body": {"temperature": 0},
    }

    message = client.messages.create(**messages)
    show("message", message.content[0].text, message.sgl)

    raw = client.messages.with_raw_response.create(**messages)
    show("message, headers", raw.parse().content[0].text, of_headers(raw.headers))

    with client.messages.stream(**messages) as stream:
        message = stream.get_final_message()
    show("message stream", message.content[0].text, message.sgl)


if __name__ == "__main__":
    main()
