"""Reports of responses that vLLM stores: ``GET /v1/responses/ID`` comes in a request of its own, long after
the one that was decided; with ``background`` also before that.

vLLM stores responses if ``VLLM_ENABLE_RESPONSES_API_STORE`` is set. Otherwise the ids and values here are
never read; they take little memory.
"""

import json
import re
from collections import OrderedDict
from typing import Any

from vllm_sgl.request.client_request import Asked
from vllm_sgl.serve.sending import Message

#: The number of responses to remember, the latest ones.
MOST = 4096
_PATH = "/v1/responses"
#: A whole response begins with its id, and so does the first event of a stream, which carries one.
_ID = re.compile(rb'"id":("(?:[^"\\]|\\.)*")')


class Stored:
    """What was asked, and so what was decided, by the response's id."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._asked: OrderedDict[str, Asked] = OrderedDict()

    def noting(self, path: str, send: Any, about: Asked) -> Any:
        """``send`` of a POST to this path; notes the id of what goes out, where that is a response."""
        if not path.rstrip("/").endswith(_PATH):
            return send
        status, noted = 0, False

        async def send_and_note(message: Message) -> None:
            nonlocal status, noted
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status == 200 and not noted and (found := _ID.search(message.get("body", b""))):
                noted = True
                self._remember(json.loads(found[1]), about)
            await send(message)

        return send_and_note

    def asked(self, path: str) -> Asked | None:
        """What the response that is stored under this path was asked with; None where that is unknown."""
        _, is_below, id = path.partition(_PATH + "/")
        return self._asked.get(id) if is_below else None

    def _remember(self, id: str, about: Asked) -> None:
        self._asked[id] = about
        self._asked.move_to_end(id)
        if len(self._asked) > self._most:
            self._asked.popitem(last=False)
