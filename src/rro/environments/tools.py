"""Tools of an environment: typed Python functions that an agent calls by name.

`declare` makes the schemas that a chat template shows, `carry_out` calls what an assistant message
calls. Whatever a model writes (an unknown tool, arguments of a wrong type, no call at all) is an
invalid action with an answer, never an exception. Knows nothing of templates."""

from __future__ import annotations

import inspect
import json
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_type_hints

from rro.environments.base import Environment
from rro.environments.coroutines import settled
from rro.errors import UsageError
from rro.tool_calls import UNNAMED, tools_text
from rro.types import Message, StepResult, ToolCall

# The sections of a docstring, and an argument in one: a name, its type or not, what it is.
_SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Examples?):[ \t]*$", re.MULTILINE)
_ARGUMENT = re.compile(r" {1,8}\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*)")
Tool = Callable[..., str | StepResult | Awaitable[str | StepResult]]
NOT_RUN = "Not run: the episode has ended."
LONGEST_ERROR = 300


class ToolEnvironment(Environment):
    """An environment whose actions are calls of the functions that `tools` returns.

    Each takes typed arguments and returns a text, or a `StepResult` for more. Its docstring is
    Google's form: what it does, and an `Args:` section that describes each argument."""

    @abstractmethod
    def tools(self) -> Sequence[Tool]:
        """The functions, usually methods of the environment."""

    def step(self, action: Message) -> StepResult:
        """Call the tools that the action calls, in order."""
        return carry_out(self.tools(), action)


def carry_out(tools: Sequence[Tool], action: Message) -> StepResult:
    """Call what an action calls, in order, as one step: rewards add up, and what follows a call
    that ends the episode is not run. The step is invalid if one of its calls is."""
    by_name = {tool.__name__: tool for tool in tools}
    if not action.tool_calls:
        names = ", ".join(by_name)
        return StepResult(f"Error: no tool was called. Call one of these: {names}.", invalid=True)
    ran: list[StepResult] = []
    for call in action.tool_calls:
        ended = bool(ran) and ran[-1].done
        ran.append(StepResult(NOT_RUN, done=True) if ended else _call(by_name, call))
    if len(ran) == 1:
        return ran[0]
    texts = tuple(result.observation for result in ran)
    return StepResult(
        "\n".join(texts),
        sum(result.reward for result in ran),
        ran[-1].done,
        any(result.invalid for result in ran),
        {key: value for result in ran for key, value in result.info.items()},
        texts,
    )


def _call(tools: Mapping[str, Tool], call: ToolCall) -> StepResult:
    if call.name == UNNAMED:
        return _error("the call could not be read: give a JSON object with name and arguments.")
    if call.name not in tools:
        return _error(f"there is no tool {call.name!r}. Call one of these: {', '.join(tools)}.")
    tool, values = tools[call.name], call.values()
    if values is None:
        return _error(f"the arguments of {call.name} are not a valid JSON object.")
    try:
        given = _arguments(_function(tool)).model_validate(values)
    except ValueError as error:
        return _error(f"{call.name}: {_problems(error)}.")
    result: Any = settled(tool(**{name: getattr(given, name) for name in given.model_fields_set}))
    return result if isinstance(result, StepResult) else StepResult(result)


def _error(reason: str) -> StepResult:
    return StepResult(f"Error: {reason[:LONGEST_ERROR]}", invalid=True)


def _problems(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}" for problem in problems
    )


@lru_cache(maxsize=256)
def _arguments(function: Callable[..., Any]) -> Any:
    """The pydantic model of a tool's arguments. Raises UsageError for a signature that no schema
    can express."""
    from pydantic import ConfigDict, create_model

    hints, fields = get_type_hints(function), dict[str, Any]()
    for name, parameter in _parameters(function).items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError(f"the tool {function.__name__} must name each of its arguments")
        if name not in hints:
            raise UsageError(f"the tool {function.__name__}: give {name!r} a type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    strict = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(function.__name__, __config__=strict, **fields)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    return parameters


def declare(tools: Sequence[Tool | Mapping[str, Any]]) -> str:
    """The JSON list of the schemas of tools: functions, or schemas as they are. "" for none. Raises
    UsageError for a function without types or docstring, and for a name that is used twice."""
    try:
        return tools_text(
            [dict(tool) if isinstance(tool, Mapping) else _schema(tool) for tool in tools]
        )
    except ValueError as error:
        raise UsageError(f"the environment's tools: {error}") from None


def _schema(tool: Tool) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_schema_of(_function(tool)))
    return schema


def _function(tool: Tool) -> Callable[..., Any]:
    """The plain function of a tool, also of a method."""
    plain: Callable[..., Any] = inspect.unwrap(getattr(tool, "__func__", tool))
    return plain


@lru_cache(maxsize=256)
def _schema_of(function: Callable[..., Any]) -> str:
    """As `transformers.utils.get_json_schema`, which would import torch within the time limit of a
    call, and breaks where that is given up."""
    name, (text, described) = function.__name__, _documented(function)
    parameters = _arguments(function).model_json_schema()
    for key in ("title", "additionalProperties", "description"):
        parameters.pop(key, None)
    for argument, schema in parameters.setdefault("properties", {}).items():
        if argument not in described:
            raise UsageError(
                f"the tool {name}: describe {argument!r} in its docstring, below Args:"
            )
        schema.pop("title", None)
        schema["description"] = described[argument]
    function_schema = {"name": name, "description": text, "parameters": parameters}
    return json.dumps({"type": "function", "function": function_schema}, ensure_ascii=False)


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a docstring in Google's form says of a function, and of each of its arguments."""
    doc = inspect.getdoc(function)
    if not doc:
        raise UsageError(f"the tool {function.__name__} needs a docstring, which the model reads")
    text, *sections = _SECTION.split(doc)
    described, name = dict[str, str](), ""
    for section, body in zip(sections[::2], sections[1::2], strict=True):
        for line in body.splitlines() if section in ("Args", "Arguments") else ():
            if entry := _ARGUMENT.match(line):
                name, described[entry[1]] = entry[1], entry[2]
            elif name and line.strip():
                described[name] += f" {line.strip()}"
    return " ".join(text.split()), described
