"""The embedded engine: MySQL's dialect on SQLite, as far as agents' questions about small databases
go. To be read in this order:

- `functions`: MySQL's collation, and what SQLite calls back;
- `store`: what the databases hold (types, columns, indexes), read from the MySQL dump into one SQLite file, built once;
- `names`: what a name means in a SELECT, and MySQL's errors for what means nothing, only_full_group_by among them;
- `expressions`, `queries`: from SQLGlot's tree of MySQL's SQL to text of SQLite's;
- `order`: in which order MySQL would have read the rows;
- `show`: SHOW, DESCRIBE, USE; `sqlite`: the engine itself, with its limits and its cache.

A statement takes one pass. SQLGlot parses it. Each expression is translated in its place in the
tree: names become columns of the stored tables, a type is inferred from the bottom up, and a node
that means another thing in SQLite is replaced; all others stay, and SQLGlot writes them and their
functions in SQLite's SQL. Each SELECT becomes text as soon as it is done, with its rows numbered
where it is part of another. Rows come back rendered by the types of their columns, as Python's
MySQL drivers do.

What makes the answers MySQL's: texts are compared by keys (no case, accents, trailing spaces),
which are stored beside every text column; numbers from texts and dates from texts; exact decimals
with MySQL's scales; groups, DISTINCT and set operations in the order in which their rows are first
met; errors in MySQL's words, found in MySQL's order of clauses.

What it does not know: functions and forms that SQLGlot does not translate for SQLite (those are
errors), the exact place of a syntax error, and MySQL's optimizer beyond the outline in `order`."""
