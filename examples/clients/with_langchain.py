"""langchain-openai: a chat and a stream. Of a body it keeps what it knows; of headers all, if asked to."""

from collections.abc import Sequence

from langchain_openai import ChatOpenAI

from .question import asked, of_headers, show


def main(arguments: Sequence[str] | None = None) -> None:
    question = asked(__doc__, arguments)
    model = ChatOpenAI(
        base_url=question.api,
        api_key="none",
        model=question.model,
        max_tokens=16,
        temperature=0,
        include_response_headers=True,
        extra_body={"vllm_xargs": {"sgl_retention": 0.35}},
    )
    turns = [("user", question.content)]

    reply = model.invoke(turns)
    show("invoke", reply.content, of_headers(reply.response_metadata["headers"]))

    whole = None
    for chunk in model.stream(turns):
        whole = chunk if whole is None else whole + chunk
    show("stream", whole.content, of_headers(whole.response_metadata["headers"]))


if __name__ == "__main__":
    main()
