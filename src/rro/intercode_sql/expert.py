"""A scripted expert that knows the gold query: it makes demonstrations for SFT, with mistakes if
asked to.

It lists the tables, describes each that the gold query reads, runs the gold query, and submits. It
keeps no state between calls: the same messages and seeds give the same answer, so it can take over
anywhere in an episode. It does not look at results.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from rro.intercode_sql.data import SqlTask
from rro.intercode_sql.environment import actions_of
from rro.seeds import derive_seed
from rro.tool_calls import tool_calls
from rro.types import Completion, Message, SamplingParams, Source, Usage


class SqlExpert:
    """Lists the tables, describes them, runs the gold query, and submits.

    With probability `noise`, each choice is a mistake: it skips descriptions, describes a table
    that does not exist, leaves out a clause of the query, or submits the result of such a query.
    `seed` selects among its possible choices.
    """

    def __init__(
        self, task: SqlTask, noise: float = 0.0, seed: int = 0, *, tools: bool = False
    ) -> None:
        """With `tools`, it calls them instead of writing text."""
        self._tools = tools
        self.name = f"intercode-sql-expert(noise={noise:g})"
        self._task, self._noise, self._seed = task, noise, seed

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """`n` answers, as `Agent.sample`; `params` are ignored."""
        history = "\x1e".join(message.text for message in messages)
        ran = [
            action or ""
            for message in messages
            if message.role == "assistant"
            for action in actions_of(message)
        ]
        completions = []
        for number in range(n):
            chance = random.Random(derive_seed("sql expert", self._seed, seed, number, history))
            thought, sql = self._decide(ran, chance)
            message = self._written(thought, sql)
            completions.append(Completion(message, "stop", self.name, Usage(policy_calls=1)))
        return completions

    def _written(self, thought: str, sql: str) -> Message:
        if self._tools:
            call = ("run_sql", {"query": sql}, None) if sql else ("submit", {}, None)
            return Message("assistant", thought, Source.EXPERT, tool_calls=tool_calls([call]))
        action = f"\n```sql\n{sql}\n```" if sql else "submit"
        return Message("assistant", f"Thought: {thought}\nAction: {action}", Source.EXPERT)

    async def close(self) -> None:
        """Does nothing: the expert holds no resources."""

    def _decide(self, ran: Sequence[str], chance: random.Random) -> tuple[str, str]:
        """(thought, SQL); submit if the SQL is ""."""
        last, gold, errs = (ran[-1] if ran else ""), self._task.gold, chance.random() < self._noise
        if last == gold:
            return chance.choice(_DONE), ""
        if last in flawed(gold):
            if errs:
                return chance.choice(_DONE), ""
            return f"That does not answer the question yet. {plan(gold)}", gold
        unseen = [table for table in tables(gold) if _describe(table) not in ran]
        if errs:
            return self._err(unseen, chance)
        if not any(ran):
            return chance.choice(_BEGIN), SHOW
        if unseen:
            return chance.choice(_LOOK).format(table=unseen[0]), _describe(unseen[0])
        return plan(gold), gold

    def _err(self, unseen: Sequence[str], chance: random.Random) -> tuple[str, str]:
        if unseen and chance.random() < 0.5:
            guess = f"{unseen[0]}_{chance.choice(('data', 'info', 'list'))}"
            return chance.choice(_LOOK).format(table=guess), _describe(guess)
        mistakes = flawed(self._task.gold)
        wrong = chance.choice(mistakes) if mistakes else self._task.gold
        return plan(wrong), wrong


SHOW = "SHOW TABLES"
_BEGIN = (
    "First I need to know which tables this database has.",
    "I do not know the database yet, so I list its tables.",
    "I begin with the names of the tables.",
)
_LOOK = (
    "The question is about {table}, so I look at its columns first.",
    "I need to know what the table {table} holds before I can query it.",
    "Which columns does {table} have? I look it up.",
)
_DONE = (
    "The result is what the question asks for, so I submit it.",
    "These rows answer the question. I submit.",
    "This is the answer, and I submit it.",
)


def _describe(table: str) -> str:
    return f"DESC {table}"


@lru_cache(maxsize=4096)
def _tree(sql: str) -> exp.Expr | None:
    try:
        return parse_one(sql.rstrip("; "), dialect="mysql")
    except SqlglotError:
        return None


@lru_cache(maxsize=4096)
def tables(sql: str) -> tuple[str, ...]:
    """The tables that a query reads, each once, in order of appearance."""
    tree = _tree(sql)
    names = (
        [table.name for table in tree.find_all(exp.Table, bfs=False)] if tree is not None else []
    )
    first = {name.lower(): name for name in reversed(names)}
    return tuple(first[name] for name in dict.fromkeys(name.lower() for name in names))


@lru_cache(maxsize=4096)
def flawed(sql: str) -> tuple[str, ...]:
    """Variants of the query with one clause left out."""
    tree = _tree(sql)
    select = tree.find(exp.Select) if tree is not None else None
    if tree is None or select is None:
        return ()
    clauses = ("where", "having", "order", "limit", "distinct")
    variants = (_without(tree, clause) for clause in clauses if select.args.get(clause) is not None)
    return tuple(text for text in variants if text != sql)


def _without(tree: exp.Expr, clause: str) -> str:
    """The query with a clause of its first SELECT left out."""
    copy = tree.copy()
    if (select := copy.find(exp.Select)) is not None:
        select.set(clause, None)
    return copy.sql("mysql")


@lru_cache(maxsize=4096)
def plan(sql: str) -> str:
    """A sentence that describes a query."""
    tree, read = _tree(sql), tables(sql)
    if tree is None or not read:
        return "I can now write the query that answers the question."
    steps = [f"join {' and '.join(read)}" if len(read) > 1 else f"read {read[0]}"]
    for clause, words in (
        ("where", "keep the rows where {}"),
        ("group", "group by {}"),
        ("having", "keep groups with {}"),
    ):
        if (part := tree.args.get(clause)) is not None:
            steps.append(words.format(part.sql("mysql").partition(" ")[2].removeprefix("BY ")))
    if (order := tree.args.get("order")) is not None:
        steps.append("sort by " + ", ".join(item.sql("mysql") for item in order.expressions))
    if tree.args.get("limit") is not None:
        steps.append("take only the first rows")
    return f"I know the columns that I need. I {', '.join(steps)}."
