"""The embedded engine: MySQL's dialect on SQLite, as far as agents' questions about small databases
need it. The modules, in the order in which to read them:

- `syntax`: the tree of a statement by MySQL's grammar (mysql.lark), and where others are wrong;
- `functions`: MySQL's collation, LIKE and REGEXP;
- `numeric`, `texts`, `dates`, `times`, `aggregates`: what SQLite calls back for MySQL's functions;
- `library`: all functions in one table (functions.txt) with their types;
- `store`: the databases (types, columns, indexes), read from the MySQL dump into one SQLite file,
  which is built once;
- `values`: translated expressions as numbers, texts, or keys to compare;
- `names`: what a name in a SELECT refers to, and MySQL's errors for unknown or ambiguous names and
  for only_full_group_by;
- `operators`: arithmetic, bits, comparisons and casts of such values;
- `expressions`, `calls`, `sources`, `queries`: from the tree to SQLite's SQL: operators, functions,
  FROM, and the rest of a query;
- `order`: the order in which MySQL reads the rows;
- `show`: SHOW, DESCRIBE and USE;
- `sqlite`: the engine itself, with its limits and its cache.

Only what MySQL's grammar accepts is translated, in one pass: each node becomes SQLite's SQL with
its type and what it is made of, which says whether a group determines it. Nodes that no method
translates are errors. The values of the rows are then converted by the types of their columns to
those of Python's MySQL drivers.

The answers are MySQL's because texts are compared by keys (no case, accents or trailing spaces),
which are stored beside every text column and go along with it through subqueries; texts convert to
numbers and dates as in MySQL; decimals have MySQL's scales; groups, DISTINCT and set operations
keep the order in which their rows are first read; and errors have MySQL's wording and are found in
MySQL's order of clauses.

Not covered: what docs/intercode-sql.md lists, and MySQL's optimizer beyond the outline in `order`.
"""
