"""The embedded engine: MySQL's dialect on SQLite, as far as agents' questions about small databases
need it. The modules, in the order in which to read them:

- `syntax`: what is a statement, by MySQL's grammar (mysql.lark), and where another text is wrong;
- `functions`: MySQL's collation, LIKE and REGEXP;
- `numeric`, `texts`, `dates`, `times`, `aggregates`: what SQLite calls back for MySQL's functions;
- `library`: all functions in one table (functions.txt) with their types;
- `store`: the databases (types, columns, indexes), read from the MySQL dump into one SQLite file,
  which is built once;
- `names`: what a name in a SELECT refers to, and MySQL's errors for unknown or ambiguous names and
  for only_full_group_by;
- `values`: translated expressions as numbers, texts, or keys to compare;
- `expressions`, `calls`, `sources`, `queries`: from SQLGlot's tree of MySQL's SQL to the text of
  SQLite's: operators, functions, FROM, and the rest of a query;
- `order`: the order in which MySQL reads the rows;
- `show`: SHOW, DESCRIBE and USE;
- `sqlite`: the engine itself, with its limits and its cache.

Only what MySQL's grammar accepts is translated, in one pass. SQLGlot parses it. Each expression is
translated in its place in the tree: names become columns of the stored tables, types are inferred
from the bottom up, and a node with another meaning in SQLite is replaced; so is each function, by
the table's. All other nodes stay, and SQLGlot writes them as SQLite's SQL. Each SELECT becomes text
as soon as it is translated, with its rows numbered if it is part of another query. The values of
the rows are then converted by the types of their columns to those of Python's MySQL drivers.

The answers are MySQL's because texts are compared by keys (no case, accents or trailing spaces),
which are stored beside every text column; texts convert to numbers and dates as in MySQL; decimals
have MySQL's scales; groups, DISTINCT and set operations keep the order in which their
rows are first read; and errors have MySQL's wording and are found in MySQL's order of clauses.

Not covered: syntax that SQLGlot does not translate for SQLite (which is an error), and MySQL's
optimizer beyond the outline in `order`.
"""
