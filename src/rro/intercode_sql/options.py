"""The options of `environment.name = "intercode-sql"`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rro.config import Section
from rro.errors import UsageError
from rro.intercode_sql.environment import Compat
from rro.intercode_sql.reward import RewardKind
from rro.intercode_sql.sample import SampleDatabases
from rro.intercode_sql.schema import Schema
from rro.intercode_sql.server import PASSWORD_VARIABLE, has_password, parse_url


class IntercodeSqlOptions(Section):
    """InterCode-SQL: the agent answers questions about databases by running SQL."""

    model_config = ConfigDict(hide_input_in_errors=True)

    questions: Literal["folder", "sample"] = "folder"
    """Where questions and databases come from: the files in `data`, or small generated ones
    (`sample`) that need no download."""
    data: Path | None = None
    """Folder with the questions and the databases' dump. Default: where `rro data fetch
    intercode-sql` puts them."""
    sample_seed: int = 0
    """Seed of the generated databases and questions, if `questions` is `sample`."""
    sample: SampleDatabases = SampleDatabases()
    """Size of the generated databases, if `questions` is `sample`."""
    engine: str = "sqlite"
    """What runs the SQL: `sqlite`, the embedded engine that answers as MySQL does, or
    `mysql://user@host:port`, a server filled by `rro data load intercode-sql`. The password is read
    from $RRO_SQL_PASSWORD."""
    reward: RewardKind = "published"
    """`published`: overlap of the rows with the gold query's, times the correlation of their order.
    `iou`: the overlap alone."""
    compat: Compat = "none"
    """`ipr` parses answers with the quirks of IPR's code."""
    tools: bool = False
    """Whether the agent acts by calling the tools `run_sql(query)` and `submit()`, which the
    model's chat template shows, instead of writing text in a form. `compat` has no effect then."""
    show_schema: Schema = "none"
    """What stands below a question: nothing (`none`, the protocol of IPR and the paper), the names
    of the database's `tables`, or also those of their `columns`, which is an easier task."""
    exclude_test_golds: bool = False
    """Whether to leave out of the train split every task that has the same database and gold query
    as a test task."""
    system: str | None = None
    """The opening message that explains the rules. Default: a built-in text. An empty text leaves
    out both the message and its acknowledgement, "OK"."""
    cache: Path | None = None
    """Folder for the databases of the embedded engine, which are built on first use. Default:
    $RRO_CACHE, or `rro` in the user's cache folder."""
    allow_writer: bool = False
    """Whether the server's account may have more rights than SELECT. Statements run in read-only
    transactions either way."""

    @field_validator("engine")
    @classmethod
    def _without_password(cls, engine: str) -> str:
        """The recipe is copied into the run folder, so it must not hold the password."""
        if engine == "sqlite":
            return engine
        try:
            parse_url(engine)
        except UsageError:
            raise PydanticCustomError(
                "secret", "must be sqlite or mysql://user@host:port"
            ) from None
        if has_password(engine):
            raise PydanticCustomError(
                "secret", f"remove the password from the URL and put it into ${PASSWORD_VARIABLE}"
            )
        return engine

    @model_validator(mode="after")
    def _sample_is_embedded(self) -> Self:
        if self.questions == "sample" and self.engine != "sqlite":
            raise PydanticCustomError(
                "sample_engine", "the generated databases are on no server: leave engine at sqlite"
            )
        return self
