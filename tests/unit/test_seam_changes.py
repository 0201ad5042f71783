from collections.abc import Callable

import pytest

from tests.support.made_up_vllm import VLLM, write
from tools.seams.compare import compare
from tools.seams.source import SourceError, open_source

PATCH = "def wrap(owner, name, parameters, fix, make):\n    pass\n"


@pytest.fixture
def findings(tmp_path) -> Callable[..., list[str]]:
    """What the comparison says of one file of ours, about a vLLM with some of its text replaced."""

    def compared(ours: str, *edits: tuple[str, str, str], more: dict[str, str] | None = None) -> list[str]:
        new = {**VLLM, **(more or {})}
        for path, before, after in edits:
            assert before in new[path]
            new[path] = new[path].replace(before, after)
        rooms = dict.fromkeys(("vllm_sgl/__init__.py", "vllm_sgl/host/__init__.py"), "")
        files = {**rooms, "vllm_sgl/host/patch.py": PATCH, "vllm_sgl/host/a.py": ours}
        result = compare(
            open_source("vllm_sgl", write(tmp_path / "ours", files)),
            open_source("vllm", write(tmp_path / "old", VLLM)),
            open_source("vllm", write(tmp_path / "new", new)),
        )
        return [str(finding) for finding in result.findings]

    return compared


ENGINE, PARAMS, TOKENS = "vllm/engine/engine.py", "vllm/params.py", "vllm/text/tokens.py"

OURS = "from vllm.engine import Engine\nclass Ours(Engine):\n"

#: Ours, what the new release changes, and all that is said of it (the file, vllm_sgl/host/a.py, left out).
CHANGES = [
    pytest.param(
        "from vllm.text import load\nload('x')",
        (TOKENS, "def load", "def load_tokens"),
        ["1: missing: vllm.text:load: nowhere in this release"],
        id="renamed function",
    ),
    pytest.param(
        "from vllm import envs, Params",
        ("vllm/__init__.py", '"Params"', '"Parameters"'),
        ["1: missing: vllm:Params: now in vllm.params"],
        id="lazy name",
    ),
    pytest.param(
        "import vllm.text\nvllm.text.load('x')",
        (TOKENS, "def load", "def load_tokens"),
        ["2: missing: vllm.text:load: nowhere in this release"],
        id="name of a module",
    ),
    pytest.param(
        "import os\nos.environ['VLLM_THREADS']",
        ("vllm/envs.py", "VLLM_THREADS", "VLLM_CORES"),
        ["2: missing: vllm.envs:VLLM_THREADS: nowhere in this release"],
        id="environment variable",
    ),
    pytest.param(
        "from vllm.text.tokens import load\nload('x', strict=True)",
        (TOKENS, "strict=False", "exact=False"),
        ["2: changed: vllm.text.tokens:load: takes no 'strict', which ours gives (new here: 'exact')"],
        id="renamed parameter",
    ),
    pytest.param(
        "from vllm.text.tokens import load\nload('x', True)",
        (TOKENS, "path, strict=False", "path, encoding=None, strict=False"),
        ["2: changed: vllm.text.tokens:load: argument 2 was 'strict', is now 'encoding'"],
        id="parameter in the middle",
    ),
    pytest.param(
        "from vllm.text.tokens import load\nload('x')",
        (TOKENS, "strict=False", "strict"),
        ["2: changed: vllm.text.tokens:load: needs 'strict', which ours does not give"],
        id="parameter without a default",
    ),
    pytest.param(
        "from vllm.text.tokens import load\nload('x', True)",
        (TOKENS, "path, strict=False", "path, *, strict=False"),
        ["2: changed: vllm.text.tokens:load: takes 1 positional arguments, ours gives 2"],
        id="parameter by keyword only",
    ),
    pytest.param(
        "from vllm.text.tokens import load",
        (TOKENS, "def load", "async def load"),
        ["1: changed: vllm.text.tokens:load: was a function, is now an async function"],
        id="coroutine function",
    ),
    pytest.param(
        "from vllm import Params\nParams(stop=[], max_tokens=2, n=1)",
        (PARAMS, "max_tokens: int | None = None", "max_new: int | None = None"),
        ["2: changed: vllm.params:Params: takes no 'max_tokens', which ours gives (new here: 'max_new')"],
        id="dataclass field",
    ),
    pytest.param(
        "from vllm import Params\ngiven = {'n': 1}\ngiven['stop'] = []\nParams(**given)",
        (PARAMS, "n: int = 1", "count: int = 1"),
        ["4: changed: vllm.params:Params: takes no 'n', which ours gives (new here: 'count')"],
        id="inherited field, given in a dict",
    ),
    pytest.param(
        "from vllm import Params\nParams(max_tokens=1)",
        (PARAMS, "n: int = 1", "n: int"),
        ["2: changed: vllm.params:Params: needs 'n', which ours does not give"],
        id="field without a default",
    ),
    pytest.param(
        "from vllm import Params\ndef f(params: list[Params]):\n"
        "    return [p.clone().max_tokens for p in params]",
        (PARAMS, "max_tokens", "max_new"),
        ["3: missing: vllm.params:Params.max_tokens: not in its class"],
        id="attribute of what a method returns",
    ),
    pytest.param(
        "from vllm.engine import ENGINE\nENGINE.renderer.cache['x'].stop",
        (ENGINE, "self.renderer: Renderer", "self.drawer: Renderer"),
        ["2: missing: vllm.engine.engine:Engine.renderer: not in its class"],
        id="attribute set by a method",
    ),
    pytest.param(
        "from vllm.engine import ENGINE\nif hasattr(ENGINE, 'stopped'):\n    pass",
        (ENGINE, "def stopped", "def errored"),
        ["2: missing: vllm.engine.engine:Engine.stopped: not in its class"],
        id="attribute by a string",
    ),
    pytest.param(
        f"{OURS}    def abort(self, request_id, internal=False):\n        super().abort(request_id, True)",
        (
            ENGINE,
            "def abort(self, request_id, internal=False)",
            "def abort(self, request_id, reason, cause=None)",
        ),
        [
            "3: changed: vllm.engine.engine:Client.abort: does not give 'internal', which ours takes",
            "3: changed: vllm.engine.engine:Client.abort: gives 'cause', which ours does not take",
            "3: changed: vllm.engine.engine:Client.abort: gives 'reason', which ours does not take",
            "4: changed: vllm.engine.engine:Client.abort: argument 2 was 'internal', is now 'reason'",
        ],
        id="parameters of an overridden method",
    ),
    pytest.param(
        f"{OURS}    def abort(self, *args, **kwargs):\n        pass",
        (ENGINE, "def abort", "def cancel"),
        ["3: missing: vllm.engine.engine:Client.abort: not in its class"],
        id="removed method that ours overrides",
    ),
    pytest.param(
        f"{OURS}    def abort(self, *args, **kwargs):\n        pass",
        (ENGINE, "class Engine(Client)", "class Engine"),
        ["3: missing: vllm.engine.engine:Client.abort: ours does not override it any more"],
        id="lost base class",
    ),
    pytest.param(
        f"{OURS}    def pause(self):\n        pass",
        (ENGINE, "def abort", "def pause(self, how): ...\n            def abort"),
        ["3: changed: vllm.engine.engine:Client.pause: is new, and ours has that name too"],
        id="new method of a name of ours",
    ),
    pytest.param(
        f"{OURS}    def generate(self, prompt, params, **kwargs):\n        kwargs.get('priority', 0)",
        (ENGINE, "priority=0", "rank=0"),
        ["3: changed: vllm.engine.engine:Engine.generate: does not give 'priority', which ours takes"],
        id="key of an overriding method's keywords",
    ),
    pytest.param(
        "from vllm.engine import Engine\nfrom vllm_sgl.host.patch import wrap\n"
        "wrap(Engine, 'build', ('cls', 'config'), 'a.py', None)",
        (ENGINE, "def build(cls, config", "def build(cls, usage_context, config"),
        [
            "3: changed: vllm.engine.engine:Engine.build: takes cls, usage_context; ours expects cls, config "
            "first"
        ],
        id="parameters of a patched function",
    ),
    pytest.param(
        "from vllm.engine import Engine\nfrom vllm_sgl.host import patch\n"
        "patch.wrap(Engine, 'build', ('cls', 'config'), 'a.py', None)",
        (ENGINE, "def build", "def make"),
        ["3: missing: vllm.engine.engine:Engine.build: not in its class"],
        id="removed function that is patched",
    ),
    pytest.param(
        "from vllm.text import tokens\nfrom vllm_sgl.host.patch import wrap\n"
        "wrap(tokens, 'load', ('path', 'strict'), 'a.py', None)",
        (TOKENS, "path, strict", "path, tight, strict"),
        ["3: changed: vllm.text.tokens:load: takes path, tight; ours expects path, strict first"],
        id="parameters of a module's function that is patched",
    ),
    pytest.param(
        "SEAMS = (\n    'vllm.engine.engine:Engine.size',\n    'vllm.engine.engine:Engine.renderer',\n)",
        (ENGINE, "self.size", "self.length"),
        ["2: missing: vllm.engine.engine:Engine.size: not in its class"],
        id="declared attribute",
    ),
    pytest.param(
        "SEAMS = ('vllm.engine:ENGINE.renderer.cache.clone.max_tokens',)",
        (PARAMS, "max_tokens", "max_new"),
        ["1: missing: vllm.engine:ENGINE.renderer.cache.clone.max_tokens: not in its class"],
        id="declared path through what attributes hold and methods return",
    ),
    pytest.param(
        "SEAMS = ('vllm.engine.engine:Engine.generate(prompt, params)',)",
        (ENGINE, "prompt, params", "params, prompt"),
        [
            "1: changed: vllm.engine.engine:Engine.generate: takes params, prompt in another order than "
            "prompt, params"
        ],
        id="declared parameters",
    ),
    pytest.param(
        "SEAMS = ('vllm.engine.engine:Engine.generate',)",
        (ENGINE, "prompt, params", "prompt, context, params"),
        [
            "1: changed: vllm.engine.engine:Engine.generate: argument 2 was 'params', is now 'context'",
            "1: changed: vllm.engine.engine:Engine.generate: argument 3 was 'priority', is now 'params'",
            "1: changed: vllm.engine.engine:Engine.generate: needs 'context'",
        ],
        id="declared function",
    ),
]


@pytest.mark.parametrize(("ours", "edit", "expected"), CHANGES)
def test_what_changed_is_said_once_with_file_and_line(findings, ours, edit, expected):
    assert findings(ours, edit) == [f"vllm_sgl/host/a.py:{line}" for line in expected]


def test_a_moved_class_is_one_finding_whatever_is_used_of_it(findings):
    ours = """
        from vllm.engine.engine import Engine

        class Ours(Engine):
            def abort(self, request_id, internal=False):
                super().abort(request_id, internal)

        def stopped(engine: Engine):
            return engine.stopped
    """
    found = findings(
        ours,
        (ENGINE, "class Engine(Client)", "class Core(Client)"),
        ("vllm/engine/__init__.py", "vllm.engine.engine", "vllm.engine.client"),
        more={"vllm/engine/client.py": VLLM[ENGINE]},
    )
    assert found == ["vllm_sgl/host/a.py:1: missing: vllm.engine.engine:Engine: now in vllm.engine.client"]


#: What our uses outlive.
USES = """
    from vllm import Params
    from vllm.engine import ENGINE, Engine
    from vllm.text import load
    from vllm_sgl.host.patch import wrap

    SEAMS: tuple[str, ...] = ("vllm.engine.engine:Engine.generate", "vllm.params:Params(stop)")

    class Ours(Engine):
        def abort(self, request_id, internal=False, **kwargs):
            super().abort(request_id, internal)
            self.renderer.ours = Params(n=1)
            return self.renderer.ours

    wrap(Engine, "build", ("cls", "config"), "a.py", None)
    load("x")
    ENGINE.no_such_attribute
"""
HARMLESS = [
    pytest.param((TOKENS, "strict=False", "strict=False, encoding=None"), id="optional parameter"),
    pytest.param((TOKENS, "strict=False", "exact=False"), id="parameter that ours does not give"),
    pytest.param((PARAMS, "n: int = 1", "n: int = 1\n            m: int = 2"), id="dataclass field"),
    pytest.param((ENGINE, "internal=False", "internal=False, reason=None"), id="taken by **kwargs"),
    pytest.param((ENGINE, "self.renderer: Renderer = make()", "self.renderer = Renderer()"), id="annotation"),
    pytest.param((ENGINE, "self.size = 1", "pass"), id="attribute that ours does not read"),
    pytest.param((ENGINE, "def stopped", "def errored"), id="property that ours does not read"),
    pytest.param((ENGINE, "usage=None", "usage"), id="parameter after those that a patch expects"),
]


@pytest.mark.parametrize("edit", HARMLESS)
def test_harmless_changes_are_not_reported(findings, edit):
    assert findings(USES, edit) == []


def test_a_name_may_move_behind_its_re_export(findings):
    rest = {"vllm/text/fast.py": VLLM[TOKENS]}
    assert findings(USES, ("vllm/text/__init__.py", ".tokens", ".fast"), more=rest) == []


def test_unreadable_declarations_and_patches_are_errors(findings):
    with pytest.raises(
        SourceError, match=r"^vllm_sgl/host/a.py:1: SEAMS: expected a tuple of .*, received 3$"
    ):
        findings("SEAMS = (3,)")
    with pytest.raises(SourceError, match=r"^vllm_sgl/host/a.py:2: expected a class, a name and a tuple of "):
        findings("from vllm_sgl.host.patch import wrap\nwrap(object, NAME, PARAMETERS, 'a.py', None)")
