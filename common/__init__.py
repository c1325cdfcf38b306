"""Chores that every paper shares. Knows no paper by name.

Seven rooms; each imports only those below it:

- `cli`: the command line (`commands`, `options`), what runs the seeds of a command (`run_seeds`), and what is printed:
  the list (`listing`), the table that closes a run (`closing`), BibTeX (`citing`), curves (`plot`), a restored picture
  (`restore_image`).
- `publishing`: `measure` weights (eval), those that others `released` too, `publish` records, what a published record
  must be (`checks`, and of its environment `plausible`), `verify` that all of it still holds, by the git `history`
  (`frozen` claims too) and by training again (`rerun`), published weights ready for use (`pretrained`), and the runner
  of the papers' benchmarks (`bench`).
- `pages`: from rows to `tables`, `figures`, the `pages` in Markdown, and the one in `html`; a paper `in_short`.
- `claims`: what a paper says (`papers` reads paper.yaml); `rows` of claims and measurements with their `verdict`, and
  of `ideas`, sorted by `comparison`.
- `training`: what a paper's train.py gets. `run` keeps `checkpoint`s and `weights` and ends in one of the `records`
  with its `provenance`; `recipes` are fields with bounds; `processes` that train together; `determinism` and `device`;
  what eval.py hands back (`evaluation`); fast `steps`, with batch normalization as the compiler takes it
  (`batch_norm`), convolutions with fewer multiplications (`winograd`), the compiler for C (`compile_c`), and memory
  that is kept (`allocator`); the `tries` by which open questions are settled.
- `data`: `passports` say which files a dataset is made of; they are found (`find`) or fetched (`download`); readers
  that several papers share; pictures that stay on the disk (`imagenet`) are decoded ahead (`decoding`), cut at random
  scales (`jitter`), and their `colours` moved.
- `base`: `paths`, `errors` and their exit codes, `files` that are never half written, `schema` of what is read,
  `metrics`, `progress` on the terminal and tables there (`terminal`).

Whatever is in `training`, `data` and `base` is part of what makes a number: a run cannot resume once it has changed.
"""
