"""The architecture, read from the source: imports never run upward, and importing rro stays
light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rro

ROOT = Path(rro.__file__).parent

# Lowest first. A module or package directly under rro/ stands in exactly one row; each row may use
# itself and those above it here.
GUESTS = ("webshop", "intercode_sql", "scienceworld")
LAYERS = (
    (
        "types",
        "errors",
        "seeds",
        "codec",
        "jsonl",
        "chat_rows",
        "tool_calls",
        "concurrency",
        "loop_thread",
        "processes",
        "stopping",
        "files",
    ),
    ("plugins",),
    ("config",),
    ("cluster",),
    ("runs",),
    ("models",),
    ("environments", "policies", "envs"),
    ("episodes",),
    # Both are found through the doors; no room imports them.
    (*GUESTS, "adapters"),
    ("exploration",),
    ("learning",),
    ("evaluation",),
    ("report", "serving"),
    ("pipeline", "scripting"),
    ("cli",),
    ("__main__",),
)
# What acts and what answers do not know each other.
STRANGERS = {("environments", "policies"), ("policies", "environments")}
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "pyarrow",
    "pandas",
    "ray",
    "numpy",
    "scipy",
    "nltk",
    "httpx2",
)

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def sources():
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def part_of(path):
    """The name directly under rro/ that a source file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(tree, package):
    """Names directly under rro/ that a module of `package` (its dotted name as parts) imports,
    wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            names = (
                [f"{module}.{alias.name}" for alias in node.names] if module == "rro" else [module]
            )
        else:
            continue
        parts = [name.split(".")[1] for name in names if name.startswith("rro.")]
        yield from (part for part in parts if part != "__version__")


def breaches(path, text):
    """What is wrong with the imports of one file, as sentences."""
    part = part_of(path)
    package = ("rro", *path.relative_to(ROOT).parts[:-1])
    for imported in imported_parts(ast.parse(text), package):
        if imported not in LEVEL:
            yield f"{path.relative_to(ROOT)} imports rro.{imported}, which has no layer"
        elif LEVEL[imported] > LEVEL[part]:
            yield f"{path.relative_to(ROOT)} imports rro.{imported} from above"
        elif imported in (*GUESTS, "adapters") and part != imported:
            yield f"{path.relative_to(ROOT)} imports the guest rro.{imported}"
        elif (part, imported) in STRANGERS:
            yield f"{path.relative_to(ROOT)} imports rro.{imported}, a stranger"


def test_every_module_has_a_layer():
    assert {part_of(path) for path in sources()} <= LEVEL.keys()


def test_imports_never_run_upward():
    assert [
        breach for path in sources() for breach in breaches(path, path.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("types.py", "import rro.runs.journal"),
        ("environments/base.py", "def f():\n    from rro.policies.base import Policy"),
        ("policies/base.py", "from ..environments import base"),
        ("exploration/tree.py", "from rro import pipeline"),
        ("exploration/strategies/eto.py", "from ...learning import dpo"),
        ("episodes/loop.py", "from ..cli import main"),
        ("runs/journal.py", "from rro.nowhere import x"),
    ],
)
def test_a_breach_is_seen(file, text):
    assert len(list(breaches(ROOT / file, text))) == 1


NAMES = (
    "webshop",
    "WebShop",
    "intercode",
    "InterCode",
    "scienceworld",
    "ScienceWorld",
    '"ipr"',
    '"rft"',
    '"adaptive"',
)


def own(path):
    """Whether a file may name a guest or a strategy: its own module."""
    part = path.relative_to(ROOT).parts
    return part[0] in GUESTS or part[:2] == ("exploration", "strategies")


def test_the_core_names_no_guest():
    assert [
        f"{path.relative_to(ROOT)} names {name}"
        for path in sources()
        if not own(path)
        for name in NAMES
        if name in path.read_text(encoding="utf-8")
    ] == []


@pytest.mark.parametrize("module", ["rro", "rro.cli.main"])
def test_importing_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
