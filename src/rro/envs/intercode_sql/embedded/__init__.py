"""The embedded engine: MySQL's dialect on SQLite, as far as agents' questions go. To be read in this order:

- what is there: `schema`, `dump` (read from mysqldump's output), `store` (built once, kept, opened read-only), `collation`
- from text to tree: `syntax` (SQLGlot, with MySQL's syntax errors), `stopping` (where in the text they are)
- from tree to SQLite's SQL: `names` (what a name means), `values` (types and conversions), `calls` (functions),
  `aggregates`, `expressions`, `joins` (FROM), `grouping` (only_full_group_by), `select` (one SELECT), `queries` (the rest)
- in MySQL's order of rows: `planner`
- from rows to Python: `routines` and `dates` (what SQLite calls back), `rendering`
- `show` (SHOW, DESCRIBE, USE) and `sqlite` (the engine itself: limits and cache)
"""
