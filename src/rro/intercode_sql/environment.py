"""One episode of InterCode-SQL: a question about a database, answered by running SQL and submitting
the last result.

The agent format is IPR's: a turn that tells the rules, answered by "OK", then the question; each
answer is a thought and one action, a block of SQL or `submit`. Whatever an agent writes is
answered; nothing here raises for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rro.environments.base import Environment
from rro.errors import UsageError
from rro.intercode_sql.data import SqlTask
from rro.intercode_sql.engine import Engine, Result
from rro.intercode_sql.reward import RewardKind, grade
from rro.types import Message, StepResult, Task

Compat = Literal["none", "ipr"]

INSTRUCTION = """\
You answer a question about the data in a MySQL database. You see nothing of the database but what your queries show you.
In each turn, first reason in a line that begins with "Thought: ". Then give exactly one action, in a line that begins with \
"Action: ". There are two kinds of action:
1) Run one SQL statement and see its result, or the error. Put the statement into a block marked sql:
Thought: I need the average GNP of the countries in Asia.
Action:
```sql
SELECT AVG(gnp) FROM nations WHERE continent = 'Asia'
```
2) Submit: the result of your last statement becomes your answer, and the episode ends:
Thought: This is what was asked for.
Action: submit
Never run and submit in the same turn. Inside the block, write only what MySQL can execute; anything else must be a comment. \
The order of rows counts. You have at most ten turns."""
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
    """All that later steps depend on: the task, the database in use, the last result, and the
    number of steps."""

    task: int
    database: str
    result: Result | None = None
    steps: int = 0


def parse_action(answer: str, compat: Compat = "none") -> str | None:
    """The SQL of an agent's answer, "" for submit, None for what is neither.

    The action is what follows the first "Action:". `compat` "ipr" reads it as IPR's parser does:
    the word submit anywhere in it submits, and of a block only the first line runs."""
    _, mark, action = answer.partition("Action:")
    if not mark:
        return None
    if compat == "ipr" and "submit" in action:
        return ""
    block = (
        _BLOCK.search(action)
        if compat == "none"
        else re.search(r"```sql(.*?)```", action, re.DOTALL)
    )
    if block is None:
        return "" if compat == "none" and _SUBMIT.match(action) else None
    sql = block[1].strip()
    return (sql.split("\n")[0] if compat == "ipr" else sql) or None


class IntercodeSqlEnvironment(Environment):
    """One episode. The engine and the tasks are shared, the state is a small record. `instruction`
    "" leaves it and its "OK" out; `reward` and `compat` are as in `open_intercode_sql`."""

    def __init__(
        self,
        engine: Engine,
        tasks: Sequence[SqlTask],
        instruction: str = INSTRUCTION,
        reward: RewardKind = "published",
        compat: Compat = "none",
    ) -> None:
        self._engine, self._tasks, self._instruction = engine, tasks, instruction
        self._reward, self._compat = reward, compat
        self._state = SqlState(0, "")
        self.blocking = engine.blocking

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        """Start `task` (its data is the index of a task); nothing is random, so `seed` does not
        matter."""
        if type(task.data) is not int or not 0 <= task.data < len(self._tasks):
            raise UsageError(
                f"task {task.id}: {task.data!r} is not the index of an InterCode-SQL task"
            )
        self._state = SqlState(task.data, self._tasks[task.data].database)
        question = Message("user", self._tasks[task.data].question)
        if not self._instruction:
            return (question,)
        return (Message("user", self._instruction), Message("assistant", ACKNOWLEDGEMENT), question)

    def step(self, action: Message) -> StepResult:
        sql = parse_action(action.content, self._compat)
        if sql is None:
            self._state = replace(self._state, steps=self._state.steps + 1)
            return StepResult(PREFIX + MISUNDERSTOOD, invalid=True)
        return self.submit() if sql == "" else self.run(sql)

    def run(self, sql: str) -> StepResult:
        """Execute one statement. The observation is IPR's rendering of its rows or error."""
        state = self._state
        result = self._engine.execute(state.database, sql)
        self._state = SqlState(state.task, result.database, result, state.steps + 1)
        return StepResult(
            PREFIX + self._shown(result), invalid=result.error is not None, info={"sql": sql}
        )

    def submit(self) -> StepResult:
        """End the episode with the last result as the answer."""
        result = self._state.result
        self._state = replace(self._state, steps=self._state.steps + 1)
        shown = "" if result is None else self._shown(result)
        return StepResult(PREFIX + shown, self.grade(self._reward), done=True)

    def snapshot(self) -> SqlState:
        return self._state

    def restore(self, snapshot: SqlState) -> None:
        self._state = snapshot

    @property
    def result(self) -> Result | None:
        """The last result, uncut: what `submit` would hand in."""
        return self._state.result

    def grade(self, kind: RewardKind) -> float:
        """What submitting now would earn. The gold runs in its own session, untouched by what the
        agent did."""
        result, task = self._state.result, self._tasks[self._state.task]
        return 0.0 if result is None else graded(self._engine, task, result, kind)

    def _shown(self, result: Result) -> str:
        if result.error is not None:
            # IPR's parser takes "Unknown ..." for a result, which ends without a newline
            bare = self._compat == "ipr" and "Unknown" in result.text
            return _cut(result.text + ("" if bare else "\n"))
        if result.rows is None:
            return MISUNDERSTOOD if self._compat == "ipr" else NO_ROWS
        return _cut(result.text)


def graded(engine: Engine, task: SqlTask, result: Result, kind: RewardKind) -> float:
    """The reward of a result for a task. An error earns 0; a gold that fails counts as one without
    rows, as in the original. (No split has such a task.)"""
    if result.rows is None:
        return 0.0
    return grade(result.texts, engine.execute(task.database, task.gold).texts, kind)


def _cut(text: str) -> str:
    return text if len(text) <= OBSERVATION_LENGTH else text[:OBSERVATION_LENGTH] + "..."
