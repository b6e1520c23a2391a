"""The recipes that come with rro, and how a recipe is found by its name.

The only place that knows where they are: in `recipes/` of the repository, and beside the package
when it is installed from a wheel. Does not read what a recipe sets.
"""

from __future__ import annotations

from pathlib import Path

from rro.errors import RroError, UsageError
from rro.plugins import did_you_mean


def packaged_recipes() -> dict[str, Path]:
    """The files of rro's own recipes, by name. Raises RroError if this installation lacks them."""
    return _files("*.toml")


def packaged_methods() -> dict[str, Path]:
    """The files of the methods that a recipe can name, by name. Raises RroError if this
    installation lacks them."""
    return _files("methods/*.toml")


def find_method(name: str) -> Path:
    """The file of a method. Raises UsageError that names the nearest one."""
    known = packaged_methods()
    if name not in known:
        raise UsageError(f"unknown method {name!r}: {did_you_mean(name, known)}")
    return known[name]


def _files(pattern: str) -> dict[str, Path]:
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        files = sorted(folder.glob(pattern))
        if files:
            return {file.stem: file for file in files}
    raise RroError("the recipes are missing from this installation of rro; install it again")


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe: `recipe` itself if there is such a path, else rro's own recipe of that
    name. Raises UsageError that names the nearest recipe."""
    if Path(recipe).exists():
        return Path(recipe)
    name, known = str(recipe), packaged_recipes()
    if name not in known:
        raise UsageError(
            f"{name}: no such recipe: give the path of a file, or a name: "
            f"{did_you_mean(Path(name).stem, known)}"
        )
    return known[name]


def description(recipe: Path) -> str:
    """The first sentence of the comment that a recipe begins with; empty without one."""
    words: list[str] = []
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        for word in line.removeprefix("# ").split():
            words.append(word)
            if word.endswith("."):
                return " ".join(words)
    return " ".join(words)
