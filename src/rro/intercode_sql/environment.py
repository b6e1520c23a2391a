"""The environment: a question about a database, answered by running SQL and submitting a result.

The format of the conversation is IPR's: a message with the rules, answered by "OK", then the
question; each answer is a thought and one action, a block of SQL or `submit`. No answer of an agent
raises. Knows nothing of what runs the SQL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rro.environments.base import Environment
from rro.environments.tools import Tool, carry_out
from rro.errors import UsageError
from rro.intercode_sql.data import SqlTask
from rro.intercode_sql.engine import Engine, Result
from rro.intercode_sql.reward import RewardKind, grade
from rro.intercode_sql.schema import Schema, schema_of
from rro.types import Message, StepResult, Task, ToolCall

Compat = Literal["none", "ipr"]

INSTRUCTION = """\
You answer a question about the data in a MySQL database. You see nothing of the database but what \
your queries show you.
In each turn, first reason in a line that begins with "Thought: ". Then give exactly one action, \
in a line that begins with "Action: ". There are two kinds of action:
1) Run one SQL statement and see its result, or the error. Put the statement into a block marked \
sql:
Thought: I need the average GNP of the countries in Asia.
Action:
```sql
SELECT AVG(gnp) FROM nations WHERE continent = 'Asia'
```
2) Submit: the result of your last statement becomes your answer, and the episode ends:
Thought: This is what was asked for.
Action: submit
Never run and submit in the same turn. Inside the block, write only what MySQL can execute; \
anything else must be a comment. The order of rows counts. You have at most ten turns."""
TOOL_INSTRUCTION = """\
You answer a question about the data in a MySQL database. You see nothing of the database but what \
your queries show you.
In each turn, call one tool: run_sql runs one SQL statement and shows its result or the error; \
submit gives the result of your last statement as your answer, which ends the episode. The order \
of rows counts. You have at most ten turns."""
ACKNOWLEDGEMENT = "OK"
PREFIX = "Observation: "
MISUNDERSTOOD = """\
I don't understand your input.
It must have one part that begins with "Action:". To run a statement, write
Action:
```sql
your statement
```
with nothing in the block but SQL. To give your last result as the answer, write
Action: submit"""
NO_ROWS = "[Executed; the statement has no rows to show]"
OBSERVATION_LENGTH = 350
_BLOCK = re.compile(r"```sql(.*?)```", re.DOTALL | re.IGNORECASE)
_SUBMIT = re.compile(r"\W*submit\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SqlState:
    """The whole state of an episode."""

    task: int
    """Index of the task."""
    database: str
    """The database in use."""
    result: Result | None = None
    """The last result."""
    steps: int = 0
    """Number of answers so far."""


def parse_action(answer: str, compat: Compat = "none") -> str | None:
    """The SQL of an agent's answer, "" for submit, or None if it is neither.

    The action is the text after the first "Action:", and what comes first in it counts: what an
    agent makes up after a submit or a block does not. With `compat` "ipr" it is parsed as by IPR's
    code: the word submit anywhere in it submits, and only the first line of a block runs.
    """
    _, mark, action = answer.partition("Action:")
    if not mark:
        return None
    if _SUBMIT.match(action) if compat == "none" else "submit" in action:
        return ""
    block = (
        _BLOCK.search(action)
        if compat == "none"
        else re.search(r"```sql(.*?)```", action, re.DOTALL)
    )
    if block is None:
        return None
    sql = block[1].strip()
    return (sql.split("\n")[0] if compat == "ipr" else sql) or None


def actions_of(message: Message, compat: Compat = "none") -> list[str | None]:
    """What an agent's message does, as `parse_action` says it; of each tool call where it has
    some."""
    if not message.tool_calls:
        return [parse_action(message.content, compat)]
    return [_called(call) for call in message.tool_calls]


def _called(call: ToolCall) -> str | None:
    if call.name == "submit":
        return ""
    query = (call.values() or {}).get("query") if call.name == "run_sql" else None
    return query.strip() or None if isinstance(query, str) else None


class IntercodeSqlEnvironment(Environment):
    """One episode on an engine and tasks that all episodes share.

    `instruction` is the opening message with the rules; if it is "", neither it nor the "OK" is
    sent. `reward`, `compat`, `tools` and `schema` are as in `IntercodeSqlOptions`. The state is a
    small record, so snapshots cost nothing.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: Sequence[SqlTask],
        instruction: str = INSTRUCTION,
        reward: RewardKind = "published",
        compat: Compat = "none",
        tools: bool = False,
        schema: Schema = "none",
    ) -> None:
        self._schema: Schema = schema
        self._engine, self._tasks, self._instruction = engine, tasks, instruction
        self._with_tools, self._prefix = tools, "" if tools else PREFIX
        self._reward, self._compat = reward, compat
        self._state = SqlState(0, "")
        self.blocking = engine.blocking

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        """Start `task`, whose data is an index into the tasks. Nothing is random, so `seed` has no
        effect. Raises UsageError if there is no such task."""
        if type(task.data) is not int or not 0 <= task.data < len(self._tasks):
            raise UsageError(
                f"task {task.id}: {task.data!r} is not the index of an InterCode-SQL task"
            )
        self._state = SqlState(task.data, self._tasks[task.data].database)
        told = schema_of(self._engine, self._state.database, self._schema)
        asked = [self._tasks[task.data].question, *([told] if told else [])]
        question = Message("user", "\n\n".join(asked))
        if self._with_tools and self._instruction:
            return (Message("user", f"{self._instruction}\n\n{question.content}"),)
        if not self._instruction:
            return (question,)
        return (Message("user", self._instruction), Message("assistant", ACKNOWLEDGEMENT), question)

    def step(self, action: Message) -> StepResult:
        """Carry out an agent's answer. The reward comes with the submission, which ends the
        episode: in [0, 1] for "iou", in [-1, 1] for "published"."""
        steps = self._state.steps + 1
        if self._with_tools:
            result = carry_out(self.tools(), action)
            self._state = replace(self._state, steps=steps)
            return result
        sql = parse_action(action.content, self._compat)
        if sql is None:
            self._state = replace(self._state, steps=steps)
            return StepResult(PREFIX + MISUNDERSTOOD, invalid=True)
        return self.submit() if sql == "" else self.run(sql)

    def tools(self) -> Sequence[Tool]:
        """`run_sql` and `submit`, where the environment was made with tools."""
        return (self.run_sql, self.submit) if self._with_tools else ()

    def run_sql(self, query: str) -> StepResult:
        """Run one SQL statement and show its result, or the error.

        Args:
            query: One statement that MySQL can execute.
        """
        return self.run(query.strip())

    def run(self, sql: str) -> StepResult:
        """Execute one statement. The observation is its rows or its error, as IPR displays them;
        `info` has the statement."""
        state = self._state
        result = self._engine.execute(state.database, sql)
        self._state = SqlState(state.task, result.database, result, state.steps + 1)
        return StepResult(
            self._prefix + self._shown(result), invalid=result.error is not None, info={"sql": sql}
        )

    def submit(self) -> StepResult:
        """Submit the last result as the answer, which ends the episode."""
        result = self._state.result
        self._state = replace(self._state, steps=self._state.steps + 1)
        shown = "" if result is None else self._shown(result)
        return StepResult(self._prefix + shown, self.grade(self._reward), done=True)

    def snapshot(self) -> SqlState:
        """The whole state of the episode, an immutable value."""
        return self._state

    def restore(self, snapshot: SqlState) -> None:
        """Continue from a state of an episode of the same benchmark."""
        self._state = snapshot

    @property
    def result(self) -> Result | None:
        """The last result, not truncated: what `submit` would submit."""
        return self._state.result

    def grade(self, kind: RewardKind) -> float:
        """The reward that submitting now would earn. The gold query always runs in the task's
        database, whichever the agent uses."""
        result, task = self._state.result, self._tasks[self._state.task]
        return 0.0 if result is None else graded(self._engine, task, result, kind)

    def _shown(self, result: Result) -> str:
        if result.error is not None:
            # IPR's parser takes "Unknown ..." for a result, which ends without a newline.
            bare = self._compat == "ipr" and "Unknown" in result.text
            return _cut(result.text + ("" if bare else "\n"))
        if result.rows is None:
            return MISUNDERSTOOD if self._compat == "ipr" else NO_ROWS
        return _cut(result.text)


def graded(engine: Engine, task: SqlTask, result: Result, kind: RewardKind) -> float:
    """The reward of a result. An error earns 0. A gold query that fails counts as one without rows,
    as in the original, though no split has such a task."""
    if result.rows is None:
        return 0.0
    return grade(result.texts, engine.execute(task.database, task.gold).texts, kind)


def _cut(text: str) -> str:
    return text if len(text) <= OBSERVATION_LENGTH else text[:OBSERVATION_LENGTH] + "..."
