"""``vllm run-batch``: what the middleware does for HTTP, for the lines of a batch file."""

from typing import Any

from vllm_sgl.request import client_request
from vllm_sgl.serve.reading import read_fields
from vllm_sgl.serve.reporting import report_object

_FIELDS = (
    "tools", "functions", "tool_choice", "chat_template_kwargs", "use_beam_search", "return_token_ids",
)  # fmt: skip


def reporting(run_request: Any) -> Any:
    """vLLM's function that answers a line, with the report as ``sgl`` in the line's ``response.body``."""

    # vLLM 0.32 gives a tracker of progress too, 0.33 does not.
    async def run_request_and_report(serving_engine_func: Any, request: Any, *others: Any) -> Any:
        about = client_request.Asked()
        read_fields({name: getattr(request.body, name, None) for name in _FIELDS}, about)
        with client_request.asking(about):
            output = await run_request(serving_engine_func, request, *others)
        report = report_object(about)
        body = output.response.body if output.response is not None else None
        if body is not None and report is not None:
            body.sgl = report
        return output

    return run_request_and_report
