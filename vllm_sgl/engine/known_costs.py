"""Costs that were measured before, kept in vLLM's cache folder by everything that they depend on.

A server that restarts does not wait for the same figures again, and comes to the same
verdicts.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from vllm.config import VllmConfig

from vllm_sgl import __version__
from vllm_sgl.config import SGLConfig
from vllm_sgl.decide.costs import Costs
from vllm_sgl.host.start import speed_facts
from vllm_sgl.prune.auto import AUTO

logger = logging.getLogger("vllm.vllm_sgl.costs")

#: Files that are kept; beyond it the oldest go.
MOST = 64
_COSTS = TypeAdapter(Costs)


class KnownCosts:
    """The file for one pair under one configuration.

    path: where it is, or will be. about: what the figures depend on, as JSON has it.
    """

    def __init__(self, folder: Path, about: Any) -> None:
        self.about = json.loads(json.dumps(about, sort_keys=True, default=str))
        name = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:32]
        self.path = folder / f"{name}.json"

    @classmethod
    def of(cls, large: VllmConfig, small: VllmConfig, config: SGLConfig) -> "KnownCosts":
        about = {
            "versions": {"vllm_sgl": __version__, **speed_facts.versions()},
            "machine": speed_facts.machine(),
            "large": speed_facts.engine(large),
            "small": speed_facts.engine(small),
            "query_rows": config.query_rows,
            "vision": AUTO in config.policies.values(),
        }
        return cls(speed_facts.cache_folder() / "sgl" / "costs", about)

    def read(self) -> tuple[Costs, str] | None:
        """The costs and when they were measured; None where nothing is kept, or what is kept is no such
        thing."""
        try:
            found = json.loads(self.path.read_bytes())
            if found["about"] != self.about:
                raise ValueError("it is about something else")
            return _COSTS.validate_python(found["costs"]), str(found["measured"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            logger.info("SGL: %s holds no costs (%s), and is written anew", self.path, said)
            return None

    def keep(self, costs: Costs) -> str:
        """Write them; any number of servers may do so at once. Returns where they are, in words."""
        kept = {
            "measured": time.strftime("%Y-%m-%d %H:%M"),
            "costs": _COSTS.dump_python(costs, mode="json"),
            "about": self.about,
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
            with os.fdopen(handle, "w") as file:
                json.dump(kept, file, indent=1)
            Path(name).replace(self.path)
            self._forget_the_oldest()
        except OSError as error:
            return f"not kept ({error})"
        return f"kept in {self.path}"

    def _forget_the_oldest(self) -> None:
        """Files of starts that broke off among them; another server may do the same just now."""
        aged = []
        for path in self.path.parent.iterdir():
            try:
                aged.append((path.stat().st_mtime, path))
            except FileNotFoundError:
                continue
        for _, path in sorted(aged)[:-MOST]:
            path.unlink(missing_ok=True)
