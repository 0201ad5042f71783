"""The small engine's start, which goes on in a thread of its own while the large engine starts."""

import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.start import SmallEngines, start_guide
from vllm_sgl.guide.guards.restart import Revived
from vllm_sgl.guide.local.guide import LocalGuide

#: How often a start is asked whether its process runs.
_CHECK_SECONDS = 0.01


class StartingGuide:
    """Begins when it is made.

    Side by side only where neither engine measures what memory the other leaves it. Then it returns as soon
    as the small engine's process has been started, with its name and its environment: what is started from
    then on is the large engine's. Elsewhere it blocks until the small engine runs.

    Args:
        patient: as :func:`vllm_sgl.engine.start.start_guide` takes it.

    Raises:
        StartRefused: where the small engine is known by now not to start.
    """

    def __init__(self, engines: SmallEngines, config: SGLConfig, patient: bool) -> None:
        self._engines = engines
        self._started: Future[Revived[LocalGuide]] = Future()
        if not engines.planned:
            self._started.set_result(start_guide(engines, config, patient))
            return

        def run() -> None:
            try:
                self._started.set_result(start_guide(engines, config, patient))
            except BaseException as error:
                self._started.set_exception(error)

        threading.Thread(target=run, name="sgl-small-start", daemon=True).start()
        try:
            while not (self._started.done() or engines.claim_processes()):
                time.sleep(_CHECK_SECONDS)
        except BaseException:  # SIGTERM, as vLLM hands it on
            self.give_up()
            raise
        self.refuse()

    def refuse(self) -> None:
        """Raise what the start failed with, if it did."""
        if self._started.done():
            self._started.result()

    def result(self) -> Revived[LocalGuide]:
        """The guide; blocks until it is there.

        Raises:
            StartRefused: where the small engine does not start.
        """
        while not self._started.done():
            wait([self._started], timeout=1)  # in pieces: an interrupt is only heard between them
        return self._started.result()

    def give_up(self, grace: float | None = 0) -> None:
        """End the start, or what it started; blocks until that is done.

        Args:
            grace: seconds that an engine which runs gets to end by itself; None for vLLM's default.
        """
        while not self._started.done():
            self._engines.give_up()
            time.sleep(_CHECK_SECONDS)
        with suppress(Exception):
            guide: Any = self._started.result()
            guide.stop(grace)
