"""Chores that every paper shares. Knows no paper by name.

Where to begin reading, and what leads where:

- The command line: `cli` with its `options`, which calls `listing`, `measure` and `restore` (eval), `publish`,
  `tables`, `verify`; what they print goes through `show` and `progress`, and what a user can do wrong is in `errors`.
- What a paper says, and on which data: `papers` reads paper.yaml, `passports` the datasets' files, both by `schema`;
  `metrics` names what is measured. `data` finds the data of a run, by `fetch` where it is not on this disk.
- A run: `recipes` bounds a recipe and takes overrides, `run` is what a paper's train.py gets. It keeps `checkpoint`s
  and `weights`, ends in one of the `records` with its `provenance`, and closes with the table of `report`. Papers call
  `determinism`, `device`, `evaluation`, `native`, `damaged` and `choices` themselves.
- What is published: `publish` takes in, and `verify` checks again, what is in order by `soundness`.
- From records to tables: `rows` of claims and measurements with their `verdict`, sorted by `comparison`, written by
  `pages` and `tables`, with `figures`.
- Under everything: `layout` (where things are) and `files` (never half written).
"""
