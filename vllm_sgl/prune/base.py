"""Policies: which visual tokens stay. Importable without torch; a policy loads when it is used."""

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Protocol

from vllm_sgl.core import Kept, Seen


class Policy(Protocol):
    """A pure function of what the guide saw: the same request keeps the same tokens."""

    def select(self, seen: Sequence[Seen], retention: float) -> Kept:
        """Kept indices per item.

        Args:
            seen: the request's images and videos, in prompt order.
            retention: share kept of all visual tokens of the request, in (0, 1].

        Returns:
            one ascending int64 tensor per item, relative to its own visual tokens, possibly empty; together
            at most ``kept_count(retention, all visual tokens)`` indices, and at least one. That no item has
            fewer than ``item.least`` is seen to for every policy (:mod:`vllm_sgl.prune.least`).
        """
        ...


#: Name of a policy, as in ``--sgl-policy``, to where its class is: ``module:Class``, made without arguments.
_POLICIES = {"top": "vllm_sgl.prune.top:TopImportance"}


def register_policy(name: str, where: str) -> None:
    """Make a policy known by a name.

    Args:
        where: ``module:Class``; the class is loaded and made, without arguments, at its first use.

    Raises:
        ValueError: where the name is another policy's.
    """
    if _POLICIES.setdefault(name, where) != where:
        raise ValueError(f"policy {name!r} is {_POLICIES[name]} already; received {where}: use another name")
    policy.cache_clear()


def policy_names() -> tuple[str, ...]:
    """Every name that :func:`policy` knows."""
    return tuple(_POLICIES)


def check_policy(name: str, key: str = "sgl_policy") -> None:
    """Refuse a name that nobody registered.

    Args:
        key: how the user wrote the setting, for the error's text.

    Raises:
        ValueError: naming the key, the policies there are and what came.
    """
    if name not in _POLICIES:
        known = " or ".join(map(repr, _POLICIES))
        raise ValueError(f"{key}: expected the name of a policy, {known}; received {name!r}")


@cache
def policy(name: str) -> Policy:
    """The policy of that name, which leaves every item what it must keep.

    Raises:
        ValueError: for an unknown one.
    """
    from vllm_sgl.prune.least import AtLeast  # loads torch

    check_policy(name)
    module, _, attribute = _POLICIES[name].partition(":")
    return AtLeast(getattr(import_module(module), attribute)())


def kept_count(retention: float, visual_tokens: int) -> int:
    """max(1, floor(retention * visual_tokens)), the product in floating point."""
    return max(1, math.floor(retention * visual_tokens))
