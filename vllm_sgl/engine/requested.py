"""What a request asks of SGL, and what it must not ask."""

from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError

from vllm_sgl.config import SGLConfig
from vllm_sgl.prune.base import check_policy
from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.options import HEADER_PREFIX, RequestOptions, header_settings


def options_of(about: Asked, extra_args: Mapping[str, Any] | None, config: SGLConfig) -> RequestOptions:
    """The options of a request of the engine.

    Args:
        about: what its client asked for.
        extra_args: of its sampling parameters; those of ``about``, before the engine is given anything.

    Raises:
        VLLMValidationError: for a bad ``sgl_*`` key or ``sgl-*`` header (a 400 over HTTP).
    """
    headers = _headers_of(about, config)
    try:
        options = RequestOptions.parse(about.as_written(extra_args), config, headers, about.profile)
        check_policy(options.policy)
    except ValueError as error:
        raise VLLMValidationError(str(error), parameter="vllm_xargs") from None
    return options


def _headers_of(about: Asked, config: SGLConfig) -> Mapping[str, Any]:
    """What the headers of a client's request set."""
    headers: Mapping[str, Any] = {}
    try:
        if about.headers:
            headers = header_settings(about.headers)
            check_policy(RequestOptions.parse(None, config, headers).policy, key=HEADER_PREFIX + "policy")
    except ValueError as error:
        raise VLLMValidationError(str(error), parameter="headers") from None
    return headers
