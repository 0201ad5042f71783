"""Policies by name. Importable without torch; a policy loads when it is used."""

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module

from vllm_sgl.config import REQUEST_PREFIX, named
from vllm_sgl.prune.auto import AUTO
from vllm_sgl.prune.base import Policy

#: Name of a policy, as in ``--sgl-policy``, to where its class is: ``module:Class``.
_POLICIES = {"top": "vllm_sgl.prune.top:TopImportance", "tiles": "vllm_sgl.prune.tiles:FewTiles"}


def register_policy(name: str, where: str) -> None:
    """Make a policy known by a name.

    Args:
        where: ``module:Class``; the class is loaded at its first use, and made without arguments. One that
            takes an argument, as in ``name:argument``, has a classmethod ``parse`` that makes it of this
            text, and raises ``ValueError`` for a bad one.

    Raises:
        ValueError: where the name is another policy's.
    """
    if _POLICIES.setdefault(name, where) != where:
        raise ValueError(f"policy {name!r} is {_POLICIES[name]} already; received {where}: use another name")
    policy.cache_clear()


def check_policy(name: str, key: str = "sgl_policy") -> None:
    """Refuse an unknown name, or an argument that the policy does not take.

    Args:
        name: as for :func:`policy`.
        key: how the user wrote the setting, for the error's text.

    Raises:
        ValueError: naming the key, what is allowed and what came.
    """
    known, separator, _ = name.partition(":")
    if name == AUTO:
        return
    if known not in _POLICIES:
        names = " or ".join(map(repr, _POLICIES))
        raise ValueError(f"{key}: expected the name of a policy, {names}; received {name!r}")
    if separator:
        try:
            policy(name)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def check_policies(names: Mapping[str, str], prefix: str = REQUEST_PREFIX) -> None:
    """Check the policies of a server (under the name "") and of its profiles, as :func:`check_policy`.

    Args:
        prefix: how the user wrote the keys, for error messages.
    """
    for profile, name in names.items():
        check_policy(name, f"{named('profiles', prefix)} {profile}: policy" if profile else prefix + "policy")


@lru_cache(maxsize=64)  # clients choose the arguments
def policy(name: str) -> Policy:
    """The policy of a registered name, or of ``name:argument``, which leaves every item what it must keep.

    Raises:
        ValueError: for an argument that it does not take.
    """
    from vllm_sgl.prune.minimum import AtLeast  # loads torch

    known, separator, argument = name.partition(":")
    module, _, attribute = _POLICIES[known].partition(":")
    kind = getattr(import_module(module), attribute)
    if separator and not hasattr(kind, "parse"):
        raise ValueError(f"the policy {known!r} takes no argument; received {name!r}")
    return AtLeast(kind.parse(argument) if separator else kind())
