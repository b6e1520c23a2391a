"""Doors: how environments, policies, strategies, credits and learners are found by name.

All five kinds are found the same way, rro's own included: a name registered in this process, an
entry point of an installed package (group `rro.environments` and so on), or `module:attribute`. A
plug-in is a class or function that is called with its options, and with a context where it asks for
one. Its options model is the pydantic model that its parameter `options` is annotated with;
otherwise one is made of its keyword parameters.

This module knows no plug-in by name, and imports one only when it is asked for.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import itertools
import logging
import os
import sys
import textwrap
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rro.errors import UsageError, describe, place_of

if TYPE_CHECKING:
    from pydantic import BaseModel

log = logging.getLogger(__name__)

Factory = Callable[..., Any]
F = TypeVar("F", bound=Factory)
OPTIONS, CONTEXT = "options", "context"


@dataclass(frozen=True)
class Plugin:
    """A class or function found through a door, with the name it was found by."""

    kind: str
    name: str
    factory: Factory
    members: tuple[str, ...] = ()
    """What it must have once it is made."""

    @cached_property
    def options_model(self) -> type[BaseModel]:
        """The pydantic model of its options: annotated on `options`, or made of its keyword
        parameters."""
        hint = _hints(self.factory).get(OPTIONS)
        if isinstance(hint, type) and hasattr(hint, "model_fields"):
            return hint
        try:
            made = _known_model if isinstance(self.factory, Hashable) else _model_of_parameters
            return made(self.name, self.factory)
        except Exception as error:  # pydantic's and inspect's, for what no recipe can set
            raise self._broken(error) from error

    def needs(self, what: str) -> bool:
        """Whether its attribute `needs` names `what`, e.g. "experts"."""
        return what in getattr(self.factory, "needs", ())

    def option_names(self) -> set[str]:
        """The names of its options."""
        return set(self.options_model.model_fields)

    def options(self, values: Mapping[str, Any]) -> BaseModel:
        """`values` checked by the options model, old names of options among them; "none" stands
        for None where the option has it. Raises pydantic.ValidationError, and UsageError where the
        model itself fails."""
        from pydantic import ValidationError

        current, old_names = dict(values), getattr(self.factory, "old_names", {})
        for old, new in old_names.items():
            if old in current:
                what = "option %s of %s %s is now called %s; the old name goes in the next minor "
                what += "version"
                log.warning(what, old, self.kind, self.name, new)
                current.setdefault(new, current.pop(old))
        try:
            return self.options_model.model_validate(_read_nones(current, self.options_model))
        except (ValidationError, UsageError):
            raise
        except Exception as error:  # whatever a validator or a default does
            raise self._broken(error) from error

    def ask(self, options: BaseModel) -> str:
        """Whether what it needs outside this process is there, as its attribute `check(options)`
        finds out; empty where it has none. Raises UsageError for what is missing."""
        check = getattr(self.factory, "check", None)
        return str(check(options)) if check else ""

    def make(self, options: BaseModel, context: Any = None) -> Any:
        """Call it with its options, and with `context` if it has a parameter of that name. Raises
        UsageError for what is no plug-in of its kind."""
        given: dict[str, Any] = {OPTIONS: options}
        if not _takes(self.factory, OPTIONS):
            given = {name: getattr(options, name) for name in options.model_fields_set}
        if _takes(self.factory, CONTEXT):
            given[CONTEXT] = context
        made = self.factory(**given)
        if inspect.iscoroutine(made):
            made.close()
            raise UsageError(f"{self.kind} {self.name} is a coroutine: use def, not async def")
        if missing := [name for name in self.members if not hasattr(made, name)]:
            raise UsageError(
                f"{self.kind} {self.name} made {_article(type(made).__name__)}, which has no "
                f"{' and no '.join(missing)} (see docs/plugins.md)"
            )
        return made

    def _broken(self, error: Exception) -> UsageError:
        from pydantic_core import SchemaError

        if isinstance(error, SchemaError) and "KeyboardInterrupt:" in str(error):
            # so pydantic tells an interrupt while it builds a validator
            raise KeyboardInterrupt from error
        log.debug("options of %s", self.name, exc_info=True)
        return UsageError(
            f"{self.kind} {self.name}: its options fail: {describe(error)}{place_of(error)}"
        )


@dataclass
class Door:
    """One kind of plug-in. `kind` is its singular name, e.g. "strategy"; `group` that of its entry
    points; `members` what each must have once it is made."""

    kind: str
    group: str
    members: tuple[str, ...] = ()
    _registered: dict[str, Factory] = field(default_factory=dict)

    def register(self, name: str, factory: Factory) -> None:
        """Make `factory` available under `name` in this process. Raises UsageError for a name that
        is taken."""
        if name in self.names():
            raise UsageError(f"{_article(self.kind)} named {name!r} is registered already")
        self._registered[name] = factory

    def names(self) -> list[str]:
        """The names that can be used in a recipe, sorted: registered ones and those of installed
        packages."""
        return sorted({*self._registered, *self._entry_points})

    def find(self, name: str) -> Plugin:
        """The plug-in called `name`, or `module:attribute`. Raises UsageError that lists the known
        names."""
        if name in self._registered:
            factory = self._registered[name]
        elif name in self._entry_points:
            factory = self._entry_points[name].load()
        else:
            factory = self._imported(name)
        if not callable(factory):
            raise UsageError(
                f"{self.kind} {name} is a {type(factory).__name__}: name a class or a function"
            )
        return Plugin(self.kind, name, factory, self.members)

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _imported(self, target: str) -> Factory:
        module, colon, attribute = target.partition(":")
        if not colon:
            raise UsageError(
                f"unknown {self.kind} {target!r}: "
                f"{did_you_mean(target, self.names())}, or module:attribute of your own"
            )
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise UsageError(f"{self.kind} {target}: write module:attribute, as Python names both")
        search_in([os.getcwd()])
        if module.partition(".")[0] in sys.stdlib_module_names:
            self._refuse(target, "it is of Python's own library")
        try:
            factory = typing.cast(Factory, getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.kind} {target}: {error}; modules are looked for beside the recipe, in the "
                "working directory and among installed packages"
            ) from error
        except (Exception, SystemExit, GeneratorExit) as error:  # whatever the module does
            raise UsageError(
                f"{self.kind} {target}: importing {module} failed: "
                f"{describe(error)}{place_of(error)}"
            ) from error
        if reason := _no_plugin(factory):
            self._refuse(target, reason)
        return factory

    def _refuse(self, target: str, reason: str) -> typing.NoReturn:
        raise UsageError(f"{self.kind} {target} is no plug-in: {reason}")


ENVIRONMENTS = Door("environment", "rro.environments")
POLICIES = Door("policy backend", "rro.policies", ("name", "provenance", "sample", "close"))
STRATEGIES = Door("strategy", "rro.strategies", ("name", "explore"))
CREDITS = Door("credit", "rro.credits", ("gives", "rows"))
LEARNERS = Door("learner", "rro.learners", ("name", "takes", "train"))
DATA_SETS = Door("data set", "rro.data_sets")
COMMANDS = Door("command", "rro.commands")
SERVERS = Door("server of environments", "rro.servers")


def checked_by(check: Callable[[Any], str]) -> Callable[[F], F]:
    """Decorates a plug-in: `check(options)` finds out whether what it needs outside this process is
    there, and raises UsageError where it is not."""

    def decorate(factory: F) -> F:
        factory.check = check  # type: ignore[attr-defined]
        return factory

    return decorate


def needing(*what: str) -> Callable[[F], F]:
    """Decorates a plug-in that is a function with what it `needs`."""

    def decorate(factory: F) -> F:
        factory.needs = frozenset(what)  # type: ignore[attr-defined]
        return factory

    return decorate


def search_in(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Let `module:attribute` find modules in these folders, after all that Python already
    searches."""
    for folder in (os.fspath(folder) for folder in folders):
        if folder not in sys.path and not ("" in sys.path and folder == os.getcwd()):
            sys.path.append(folder)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all of them."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, 1)
    question = f"did you mean {close[0]}? " if close else ""
    return f"{question}choose one of {', '.join(choices)}"


def _read_nones(value: Any, hint: Any) -> Any:
    """An option's value with None for "none", which TOML has no other word for, unless the option's
    type takes a text there, or has "none" as a word."""
    if value == "none":
        return None if _takes_none(hint) else value
    if not isinstance(value, dict):
        return value
    types = [hint, *typing.get_args(hint)]
    fields: Any = next((t.model_fields for t in types if hasattr(t, "model_fields")), {})
    hints = {info.alias or name: info.annotation for name, info in fields.items()}
    items = next((typing.get_args(t)[1] for t in types if typing.get_origin(t) is dict), Any)
    return {key: _read_nones(item, hints.get(key, items)) for key, item in value.items()}


def _takes_none(hint: Any) -> bool:
    """Whether None is a value of a type; of one that is not known, it is."""
    hint = getattr(hint, "__value__", hint)  # of an alias
    if hint in (Any, None, type(None)):
        return True
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return None in choices
    if any(
        typing.get_origin(choice) is Literal and "none" in choice.__args__ for choice in choices
    ):
        return False
    return type(None) in choices


def _model_of_parameters(name: str, factory: Factory) -> type[BaseModel]:
    from pydantic import ConfigDict, Field, create_model

    hints, texts, fields = _hints(factory), _descriptions(factory), dict[str, Any]()
    extra: Literal["allow", "forbid"] = "forbid"
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"its parameter {parameter.name} can only be given by position")
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in (
            OPTIONS,
            CONTEXT,
        ):
            default = ... if parameter.default is parameter.empty else parameter.default
            hint, text = hints.get(parameter.name, Any), texts.get(parameter.name)
            fields[parameter.name] = (hint, Field(default, description=text))
    config = ConfigDict(extra=extra, frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    return create_model(
        f"{name} options", __config__=config, __doc__=inspect.getdoc(factory), **fields
    )


# Reading a class's source takes longer than anything else that is done with a plug-in.
_known_model = functools.lru_cache(maxsize=256)(_model_of_parameters)


def _takes(factory: Factory, name: str) -> bool:
    parameter = inspect.signature(factory).parameters.get(name)
    return parameter is not None and parameter.kind is not parameter.VAR_KEYWORD


def _hints(factory: Factory) -> dict[str, Any]:
    """Type hints of its parameters; none where one cannot be resolved."""
    owner: Any = factory
    if isinstance(factory, type) and not is_dataclass(factory):
        owner = owner.__init__
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _descriptions(factory: Factory) -> dict[str, str]:
    """The strings below the fields of a dataclass, which describe them; none without its source."""
    if not is_dataclass(factory):
        return {}
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(factory))).body
    except (OSError, TypeError, SyntaxError):
        return {}
    return {
        node.target.id: inspect.cleandoc(below.value.value)
        for node, below in itertools.pairwise(getattr(body, "body", ()))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _no_plugin(factory: Any) -> str:
    """Why something that was imported cannot be a plug-in; empty if it may be one. It is not
    called to find out."""
    function = factory.func if isinstance(factory, functools.partial) else factory
    name = str(getattr(function, "__module__", None) or type(function).__module__)
    module = sys.modules.get(name)
    if name.partition(".")[0] in sys.stdlib_module_names and callable(function):
        return "it is of Python's own library"
    if name.partition(".")[0] == "rro" or not _is_installed(module):
        return ""
    return "" if any(map(_is_of_rro, vars(module).values())) else "its module does not use rro"


def _is_installed(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None) or ""
    return bool({"site-packages", "dist-packages"} & set(file.split(os.sep)))


def _is_of_rro(value: Any) -> bool:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    return str(name).partition(".")[0] == "rro"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
