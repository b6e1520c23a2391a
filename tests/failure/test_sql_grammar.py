"""The embedded engine's grammar against a real MariaDB: mutated statements that the server refuses
must not run here."""

import json
import random
import re

import pytest

from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.intercode_sql.server import connect, in_lower_case, parse_url
from rro.intercode_sql.server_dump import load_dump

MUTATIONS = 4000
TOKENS = re.compile(r"""'(?:[^'\\]|\\.|'')*'|"[^"]*"|`[^`]*`|[\w.]+|[<>=!]+|\S""")
CLAUSES = """
    LIMIT ALL|NULLS LAST|::int|ILIKE 'a%'|== 1|QUALIFY 1 = 1|TABLESAMPLE (10)|FILTER (WHERE 1)
    IS DISTINCT FROM 1|TOP 1|DISTINCT ON (1)|GROUP BY ALL|SORT BY 1|CLUSTER BY 1|OFFSET 1|LIMIT 1+1
    LIMIT '1'|WITH TIES|EXCEPT(x)|[1]|FULL OUTER JOIN|USING SAMPLE 5|PIVOT (1)|AT TIME ZONE 'UTC'
    NOT NULL|ISNULL|NOTNULL|SIMILAR TO 'a'|GLOB 'a'|WITHIN GROUP (ORDER BY 1)|,|(|)|AS|DISTINCT
    BETWEEN 1|RETURNING 1|;|CROSS APPLY|ONLY|FINAL|PREWHERE 1|ASOF|ANTI|SEMI|LIMIT 1 BY 1|OVER ()
    WITH ROLLUP|WITH CUBE|ASC|DESC|NULLS FIRST|INTERVAL 1 DAY|INTERVAL '1 day'|DATE '2020-01-01'|{x}
    $1|%|^|~|'x'|1.5|-1|NOT|EXISTS|ANY|ALL (SELECT 1)|UNION|UNION ALL|INTERSECT|MINUS|CASE|END
    NULL|IS NULL|LIKE|IN (1)|IN ()|REGEXP 'a'|STRAIGHT_JOIN|NATURAL|CROSS|ON 1|USING (id)|HAVING 1
    ROWS 1|SEPARATOR ','|ORDER BY 1|GROUP BY 1|LIMIT 1|WHERE 1|# x|-- x|--x|/* x|*/"""
INTERRUPTED = 1969


def mutated(draw, sql):
    """The statement with a token dropped, doubled, swapped or replaced, or with a clause more."""
    places = [match.span() for match in TOKENS.finditer(sql)]
    clauses = [clause.strip() for line in CLAUSES.splitlines() for clause in line.split("|")]
    (start, end), (first, last) = draw.choice(places), draw.choice(places)
    return [
        sql[:start] + sql[end:],
        f"{sql[:end]} {sql[start:]}",
        sql[:start] + sql[first:last] + sql[end:],
        f"{sql[:end]} {draw.choice(clauses)} {sql[end:]}",
        f"{sql} {draw.choice(clauses)}",
        _swapped(sql, places, draw.randrange(len(places))),
    ][draw.randrange(6)]


def _swapped(sql, places, number):
    (start, end), (first, last) = places[number - 1], places[number]
    between = sql[end:first] or " "
    return sql[:start] + sql[first:last] + between + sql[start:end] + sql[last:] if number else sql


@pytest.mark.slow
def test_what_the_server_refuses_does_not_run(shared, admin):
    import pymysql

    data = shared / "data" / "intercode-sql"
    load_dump(admin, data / "ic_spider_dbs.sql")
    golds = json.loads((data / "ic_spider_dev.json").read_text(encoding="utf-8"))
    statements = [(gold["db"].lower(), gold["gold"].strip("; ")) for gold in golds]
    answers = shared / "conformance" / "intercode-sql" / "mariadb_answers.jsonl"
    records = map(json.loads, answers.read_text(encoding="utf-8").splitlines())
    # As many of these as golds, of which there are more.
    statements += 4 * [(record["db"], record["sql"]) for record in records if "rows" in record]
    draw, accepted, refused = random.Random(0), [], []
    engine = SqliteEngine(data / "ic_spider_dbs.sql")
    connection = connect(parse_url(admin))
    with connection.cursor() as cursor:
        cursor.execute(
            "SET SESSION max_statement_time = 2, sql_mode = 'ONLY_FULL_GROUP_BY,"
            "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
        )
        for _ in range(MUTATIONS):
            database, sql = draw.choice(statements)
            sql = mutated(draw, sql).strip()
            connection.select_db(database)
            code = 0
            try:
                cursor.execute(in_lower_case(sql))
                cursor.fetchall()
            except pymysql.err.MySQLError as error:
                code = error.args[0]
            error = engine.execute(database, sql).error
            if error is None and code not in (0, INTERRUPTED):
                accepted.append((code, sql))
            refused += [(error, sql)] if error is not None and code == 0 else []
    engine.close()
    assert len(accepted) <= 0.005 * MUTATIONS, accepted
    # Valid statements that are not supported here.
    assert len(refused) <= 0.02 * MUTATIONS, refused
