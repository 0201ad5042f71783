"""Where vLLM quotes an architecture of ours: its variant has another name, and would get nothing there."""

import ast
import re
from collections.abc import Iterator

from tools.seams.source import Source

#: Ours: the file that gives variants what their architectures have.
_OURS = "vllm_sgl/host/start/named_settings.py"
#: Where the table of families is.
_FAMILIES = "vllm_sgl/families/__init__.py"
#: Models name themselves, and the registry all of them.
_MODELS = "vllm/model_executor/models/"
#: Places that are taken care of, and how.
KNOWN = {
    f"{_MODELS}config.py": "copied by named_settings.py",
    "vllm/entrypoints/generate/structured_decisions/strategies.py": "copied by named_settings.py",
    "vllm/v1/spec_decode/llm_base_proposer.py": "families/variant.py sets image_token_index, its fallback",
    "vllm/transformers_utils/configs/mistral.py": "names a config before a variant is chosen",
}


def architectures(ours: Source) -> list[str]:
    """The keys of our table of families; none where there is no such table."""
    if _FAMILIES not in ours.paths:
        return []
    tree = ast.parse(ours.read(_FAMILIES))
    tables = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Dict)
        and any(isinstance(target, ast.Name) and target.id == "FAMILIES" for target in node.targets)
    )
    return [key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)]


def named(ours: Source, vllm: Source) -> dict[str, list[tuple[int, str]]]:
    """Files of vLLM that quote one of our architectures, models and their registry apart: lines and names."""
    names = architectures(ours)
    quoted = re.compile(rf"[\"']({'|'.join(map(re.escape, names))})[\"']") if names else None
    found: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(vllm.paths if quoted else ()):
        if path.startswith(_MODELS) and path != f"{_MODELS}config.py":
            continue
        for number, line in enumerate(vllm.read(path).decode().splitlines(), 1):
            found.setdefault(path, []).extend((number, name) for name in quoted.findall(line))
    return {path: places for path, places in found.items() if places}


def unknown(ours: Source, vllm: Source) -> Iterator[str]:
    """One line per place of a release that nobody takes care of."""
    for path, places in named(ours, vllm).items():
        for number, name in places if path not in KNOWN else ():
            yield f"{_OURS}: named: {path}:{number} names {name}: give its variant the same there"
