"""Tables from a made-up repository: complete, the same bytes every time, and readable by others."""

import csv
import io
import json
from pathlib import Path

import pandas
import pytest
import yaml

from common.base import paths
from common.claims import verdict
from common.claims.comparison import Comparison
from common.claims.rows import paper_rows
from common.pages import tables
from common.pages.figures import FOREST
from common.pages.in_short import coverage
from common.pages.tables import BEGIN, END, markers
from tests.common.conftest import PAGE

FIELDS = [
    "paper", "claim", "variant", "dataset", "edition", "metric", "protocol", "reported", "tolerance", "mean", "sd", "n",
    "low", "high", "next_low", "next_high", "difference", "difference_low", "difference_high", "examples_low",
    "examples_high", "verdict", "records", "note", "released", "released_verdict", "released_record", "reported_text",
    "source",
]  # fmt: skip


def text_of(name: str) -> str:
    return tables.tables()[paths.RESULTS / name]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_same_records_give_the_same_bytes_in_whatever_order_they_lie(world, monkeypatch, backwards):
    first = tables.tables()
    for name in ("glob", "rglob"):
        found = getattr(Path, name)
        order = lambda folder, pattern, found=found: iter(sorted(found(folder, pattern), reverse=backwards))  # noqa: E731
        monkeypatch.setattr(Path, name, order)
    assert tables.tables() == first


def test_rebuild_writes_what_tables_say_and_again_changes_nothing(world):
    written = tables.rebuild()
    first = {path: path.read_bytes() for path in written}
    texts = {path: content for path, content in first.items() if path.suffix != ".png"}
    assert texts == {path: text.encode() for path, text in tables.tables().items()}
    assert set(first) - set(texts) == {paths.FIGURES / FOREST}
    tables.rebuild()
    assert first == {path: path.read_bytes() for path in written}


def test_another_value_gives_other_tables(world, record):
    before = tables.tables()
    world.publish(record(0, 0.5))
    after = tables.tables()
    untouched = [paths.RESULTS / "ideas.json", paths.PAPERS / "beta_2010" / "README.md"]  # no idea, another paper
    assert [path for path in before if before[path] == after[path]] == untouched


def section(page: str, paper: str) -> str:
    return page.split(f"## {paper}: ")[1].split("\n## ")[0]


def lines_of(text: str) -> list[list[str]]:
    """The cells of every line of the Markdown tables in a text, but for headings."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, line in enumerate(table) if set(line) <= set("|:-")]
    headings = {*rules, *(number - 1 for number in rules)}
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for k, line in enumerate(table) if k not in headings
    ]


def test_measured_rows_come_first_then_one_line_per_unmeasured_variant(world):
    page = text_of("README.md")
    first, second = section(page, "alpha_2001"), section(page, "beta_2010")
    assert "Not attempted" not in first and len(lines_of(first)) == 3 + 3  # rows; groups of records
    measured, open_claims = second.split("### Not attempted")
    failed, evidence = lines_of(measured)
    assert failed[:6] == ["plain", "test error", "last", "official", "0.95 ± 0.19 %", "–"]
    needs, command = (
        "about 30 min on a CPU per seed, shapes (official or bundle)",
        "`bash reproduce.sh beta_2010 --variant wide --seeds 0,1,2`",
    )
    assert lines_of(open_claims) == [
        ["wide", "1 below", needs, command],
        ["wide", "PSNR", "last", "30.10 ± 0.05 dB (unverified)", "Table 1"],
    ]


def test_open_claims_of_a_variant_stand_together_by_protocol(toy, power, monkeypatch):
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    plain = content["claims"][0]
    content["claims"] += [
        plain | {"id": "best", "protocol": "best", "reported": "0.9", "tolerance": 0.19, "needs": {"hours": 40.4}},
        plain | {"id": "train", "metric": "train_error", "reported": "1.00", "tolerance": 0.08},
    ]
    toy.paper(content=content)
    page = paths.PAPERS / "alpha_2001" / "README.md"
    page.write_text(PAGE)
    lines = lines_of(tables.tables()[page])
    assert [line[:3] for line in lines] == [
        [
            "plain",
            "last: test error 0.95 %, training error 1.00 %; best: test error 0.9 %",
            "about 30 min on a CPU or 40 h on a CPU per seed, shapes (official or bundle)",
        ],
        ["wide", "last: PSNR 30.10 dB", "about 30 min on a CPU per seed, shapes (official or bundle)"],
    ]
    assert "Nothing has been measured yet." in text_of("README.md")


def test_every_claim_is_on_the_page_whatever_was_measured(world):
    page = text_of("README.md")
    for name in ("alpha_2001", "beta_2010"):
        assert section(page, name).count("0.95 ± 0.19 %") == 1  # measured or failed
        assert section(page, name).count("30.10") == 1


def test_verdicts_and_their_reasons_stand_in_the_results(world):
    page = text_of("README.md")
    assert "0.95 ± 0.05 % (n = 3) | 0.00 (−0.08 to +0.08) | **reproduced** |" in " ".join(page.split())
    assert "**failed** (seed 0 failed: the loss is <nan>" in page
    assert "**too few seeds** (unverified)" in page
    assert "- *unverified*: nobody could check the printed number against the paper." in page
    assert "**other data**" in page


def test_an_edition_that_does_not_count_is_explained_where_it_appears(world):
    note = "- *resized* (shapes): the resized files. It does not count for the paper's claims."
    page = text_of("README.md")
    assert note in section(page, "alpha_2001") and note not in section(page, "beta_2010")
    assert note in tables.tables()[paths.PAPERS / "alpha_2001" / "README.md"]
    assert note not in tables.tables()[paths.ROOT / "README.md"]  # not among its rows
    assert "(shapes): the official" not in page
    assert "shapes, resized: the resized files. It does not count for the paper" in text_of("index.html")


def test_an_edition_that_counts_as_the_first_does_is_explained_with_its_evidence(toy, record):
    file = paths.PASSPORTS / "shapes.yaml"
    content = yaml.safe_load(file.read_text())
    content["editions"]["resized"] |= {"equivalent": True, "evidence": "all angles are the same"}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    toy.paper()
    (paths.PAPERS / "alpha_2001" / "README.md").write_text(PAGE)
    toy.publish(record(0, edition="resized"))
    note = "(shapes): the resized files. It counts for the paper's claims: all angles are the same."
    assert note in tables.tables()[paths.PAPERS / "alpha_2001" / "README.md"]


def test_measured_variants_are_described_and_the_others_named(toy, record, power, monkeypatch):
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    content["claims"] = [content["claims"][0]]
    toy.paper(content=content)
    (paths.PAPERS / "alpha_2001" / "README.md").write_text(PAGE)
    toy.publish(record())
    files = tables.tables()
    for page in (files[paths.RESULTS / "README.md"], files[paths.PAPERS / "alpha_2001" / "README.md"]):
        assert "- *plain*: as printed\n" in page and "twice as wide" not in page
        assert "### Not attempted\n\nNot run yet, and not covered by any claim: wide.\n" in page
    not_run = "Not run yet, and not covered by any claim: 1</summary>wide<"
    assert not_run in files[paths.RESULTS / "index.html"]
    content["claims"][0]["detail"] = True  # hides the row from the overview, and is a claim all the same
    toy.paper(content=content)
    toy.publish(record(variant="wide"))
    assert "Not attempted" not in text_of("README.md") and not_run not in text_of("index.html")


def test_an_edition_that_the_passport_has_lost_is_told(world, record):
    world.publish(record(0, edition="lost"))
    assert "- *lost* (shapes): not an edition of the passport. It does not count" in text_of("README.md")


def test_protocols_of_what_was_measured_are_explained(world):
    page = text_of("README.md")
    assert "- *last*: the last weights" in page and "- *best*" not in page


def test_every_record_is_linked(world, records):
    page = text_of("README.md")
    for record in records:
        path = record.path().relative_to(paths.RESULTS)
        assert f"({path})" in page and record.path().exists()


def test_results_say_where_a_number_is_printed_and_the_commit_measured(world, records):
    content = world.paper_content()
    content["claims"][1]["second_reference"] = {"source": "torchvision", "value": "30.2"}
    world.paper("alpha_2001", content)
    page = section(text_of("README.md"), "alpha_2001")
    where = content["claims"][1]["where"]
    assert [line[-1] for line in lines_of(page) if line[0] == "wide"][0] == f"{where}; torchvision: 30.2 dB"
    assert [line[3] for line in lines_of(page) if "[0](" in line[2]] == [records[0].code.commit[:7]] * 3


def test_a_record_that_names_no_commit_breaks_no_table(world, record):
    world.publish(record(0, 0.9, code={"commit": None, "committed": False, "sources": "34" * 32}))
    assert "| none" in section(text_of("README.md"), "alpha_2001")


def test_comparison_json_has_its_fields_and_one_object_a_row(world):
    rows = json.loads(text_of("comparison.json"))
    assert all(list(row) == FIELDS for row in rows)
    assert [(row["paper"], row["claim"], row["verdict"]) for row in rows] == [
        ("alpha_2001", "plain-test", "reproduced"),
        ("alpha_2001", None, "other data"),
        ("alpha_2001", "wide-psnr", "too few seeds"),
        ("beta_2010", "plain-test", "failed"),
        ("beta_2010", "wide-psnr", "not attempted"),
    ]


def test_what_is_reported_is_a_number_and_keeps_its_digits(world):
    rows = json.loads(text_of("comparison.json"))
    told = {row["claim"]: (row["reported"], row["reported_text"]) for row in rows}
    assert told == {"plain-test": (0.95, "0.95"), "wide-psnr": (30.1, "30.10"), None: (0.95, "0.95")}
    assert {"30.1", "30.10"} <= set(text_of("comparison.csv").replace("\n", ",").split(","))


def test_csv_reads_back_as_the_same_rows(world):
    rows = json.loads(text_of("comparison.json"))
    text = text_of("comparison.csv")
    frame = pandas.read_csv(io.StringIO(text), dtype={"reported_text": str})
    assert list(frame.columns) == FIELDS
    assert frame["n"].tolist() == [row["n"] for row in rows]
    for column in [field for field in FIELDS if field not in ("n", "records")]:
        read = frame[column].astype(object).where(frame[column].notna(), None).tolist()
        assert read == [None if row[column] == "" else row[column] for row in rows], column
    assert [line["records"].split() for line in csv.DictReader(io.StringIO(text))] == [row["records"] for row in rows]


def test_latex_is_escaped_and_balanced(world):
    text = text_of("comparison.tex")
    lines = [line for line in text.splitlines() if "&" in line]
    assert len(lines) == 5  # the heading and the four rows that have records
    assert {line.count(" & ") for line in lines} == {9}
    assert r"failed (seed 0 failed: the loss is" in text and "too few seeds (unverified)" in text
    assert r"alpha\_2001" in text and r"0.95 $\pm$ 0.19 \%" in text
    bare = text.replace(r"\_", "").replace(r"\%", "")
    assert "_" not in bare and "%" not in bare
    assert text.isascii()
    assert text.count(r"\begin{") == text.count(r"\end{") == 1


def test_figures_that_exist_are_shown(world):
    folder = paths.FIGURES / "alpha_2001"
    folder.mkdir(parents=True)
    (folder / "curve.png").write_bytes(b"")
    files = tables.tables()
    assert "![curve](../../results/figures/alpha_2001/curve.png)" in files[paths.PAPERS / "alpha_2001" / "README.md"]
    assert '<img src="figures/alpha_2001/curve.png"' in files[paths.RESULTS / "index.html"]


def test_the_forest_plot_is_shown_where_there_is_one(world):
    shown = {paths.ROOT / "README.md": "(results/figures/", paths.RESULTS / "README.md": "(figures/"}
    assert not any(FOREST in text for text in tables.tables().values())
    tables.rebuild()
    assert all(f"]({way[1:]}{FOREST})" in tables.tables()[page] for page, way in shown.items())
    assert f'<img src="figures/{FOREST}"' in text_of("index.html")


def test_a_figure_that_the_page_shows_already_is_not_shown_again(world):
    folder = paths.FIGURES / "alpha_2001"
    folder.mkdir(parents=True)
    for name in ("curve", "map_of_all"):
        (folder / f"{name}.png").write_bytes(b"")
    page = paths.PAPERS / "alpha_2001" / "README.md"
    page.write_text("![a curve](../../results/figures/alpha_2001/curve.png)\n" + PAGE)
    for _ in range(2):
        page.write_text(tables.tables()[page])
        assert page.read_text().count("curve.png") == 1
        assert page.read_text().count("![map of all](../../results/figures/alpha_2001/map_of_all.png)") == 1


def test_what_is_between_the_markers_is_replaced_and_nothing_else(world):
    for page in (paths.PAPERS / "alpha_2001" / "README.md", paths.ROOT / "README.md"):
        text = tables.tables()[page]
        before, rest = text.split(BEGIN)
        block, after = rest.split(END)
        assert before == PAGE.split(BEGIN)[0] and after == PAGE.split(END)[1]
        assert "old" not in block and "**reproduced**" in block
        page.write_text(text)
        assert tables.tables()[page] == text


def front_lines(title: str) -> list[list[str]]:
    block = tables.tables()[paths.ROOT / "README.md"]
    return [line[1:] for line in lines_of(block) if line[0].startswith(f"[{title}](papers/")]


def test_the_front_page_has_the_attempted_claims_and_the_state_of_all(world):
    standing, *verdicts, beside = front_lines("A page")  # the heading of alpha_2001's page
    assert [line[:5] for line in verdicts] == [
        ["plain", "test error", "last", "official", "0.95 ± 0.19 %"],
        ["wide", "PSNR", "last", "official", "30.10 ± 0.05 dB"],
    ]
    printed = ", where the paper prints 0.95 % for its own data"
    assert beside == ["plain", "resized", "test error", f"last: 3.33 ± 0.33 % (n = 3){printed}"]
    assert standing == [
        "test error 0.95 % (Table 1): as printed",
        "test error 0.95 ± 0.05 % (n = 3): **reproduced**; "
        "test error 3.33 ± 0.33 % (n = 3), on the edition resized: **other data**",
        "1 reproduced, 1 too few seeds",
    ]
    standing, *verdicts = front_lines("Bare")
    assert [line[0] for line in verdicts] == ["plain"] and standing[-1] == "1 failed, 1 not attempted"


@pytest.mark.parametrize("detail", [False, True])
def test_the_headline_of_what_no_claim_speaks_of_stands_on_the_front_page(toy, record, monkeypatch, power, detail):
    """Except under protocols that are details."""
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    content["protocols"]["{number}-crops"] = {"means": "{number} crops", "each": {"number": [9]}, "detail": detail}
    content["claims"] = [content["claims"][0]]
    toy.paper(content=content)
    (toy.root / "README.md").write_text(PAGE)
    two = {"last": {"psnr": 30.0, "test_error": 1.0}, "9-crops": {"test_error": 0.5}}
    toy.publish(
        record(edition="resized", metrics=two),
        *(record(variant="wide", metrics=two, edition=e) for e in ("resized", "official")),
    )
    last, more = "last: 1.00 % (n = 1)", "" if detail else "; 9-crops: 0.50 % (n = 1)"
    printed = ", where the paper prints 0.95 % for its own data"
    assert front_lines("alpha_2001")[1:] == [
        ["plain", "resized", "test error", last + printed + more],
        ["wide", "official", "test error", last + more],
        ["wide", "resized", "test error", last + more],
    ]
    assert ("9-crops" in text_of("README.md")) and ("9-crops" in tables.tables()[paths.ROOT / "README.md"]) != detail


def test_numbers_of_one_evaluation_are_one_claim_with_the_worst_verdict(toy, record, monkeypatch, power):
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    plain = content["claims"][0] | {"reported": "90.0", "tolerance": 0.59}
    content["claims"] = [plain | {"id": metric, "metric": metric} for metric in ("oa", "aa", "kappa")]
    content["claims"] += [
        plain | {"id": "oa-best", "metric": "oa", "protocol": "best"},
        plain | {"id": "train", "metric": "train_error", "tolerance": 0.24},
        plain | {"id": "oa-wide", "metric": "oa", "variant": "wide"},
    ]
    toy.paper(content=content)
    (toy.root / "README.md").write_text(PAGE)
    values = {"oa": 90.0, "aa": 80.0, "kappa": 95.0, "train_error": 90.0}
    toy.publish(*(record(k, metrics={"last": values, "best": {"oa": 90.0}}) for k in range(3)))
    assert front_lines("alpha_2001")[0][-1] == "2 reproduced, 1 not reproduced, 1 not attempted"


@pytest.mark.parametrize(("seeds", "found"), [(0, ""), (3, "; the mean here, 0.95 %, would rank 2")])
def test_a_claim_is_ranked_among_the_methods_that_the_paper_compares(toy, record, seeds, found, monkeypatch, power):
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    others = {"far": "10.0", "tied": "0.95", "near": "0.9"}
    content["also_reported"] = [
        {"what": "methods", "where": "Table 2", "claim": "plain-test", "values": others, "unverified": True},
        {"what": "sizes", "where": "Table 3", "values": {"small": "1.1 to 1.2", "large": "1.0"}},
    ]
    toy.paper(content=content)
    page = paths.PAPERS / "alpha_2001" / "README.md"
    page.write_text(PAGE)
    toy.publish(*(record(k) for k in range(seeds)))
    ranked = f"near 0.9, **this paper 0.95**, tied 0.95, far 10.0: rank 2 of 4{found}"
    assert lines_of(tables.tables()[page].split("### What else the paper prints")[1]) == [
        ["methods", ranked, "Table 2 (unverified)"],
        ["sizes", "small: 1.1 to 1.2; large: 1.0", "Table 3"],
    ]


def test_where_higher_is_better_the_highest_comes_first(toy):
    content = toy.paper_content()
    others = {"high": "31.0", "low": "9.0"}
    content["also_reported"] = [{"what": "methods", "where": "Table 2", "claim": "wide-psnr", "values": others}]
    (ranking,) = Comparison(toy.paper(content=content), [], []).rankings
    assert ranking.methods == [("high", "31.0"), (None, "30.10"), ("low", "9.0")]
    assert [ranking.place(value) for value in (32.0, 31.0, 30.0, 9.0, 8.0)] == [1, 1, 2, 2, 3]


def block_of_page(name: str) -> str:
    """What is generated between these markers on alpha_2001's page."""
    page = paths.PAPERS / "alpha_2001" / "README.md"
    page.write_text("\n".join(markers(name)))
    return tables.tables()[page]


def test_what_the_paper_reports_is_told_as_it_is_printed(world):
    content = world.paper_content()
    plain = content["claims"][0] | {"remark": "twice as good as before"}
    content["claims"] = [
        plain | {"spread": {"sd": 0.1, "runs": 5}, "tolerance": 0.2},
        plain | {"id": "train", "metric": "train_error", "tolerance": 0.078, "where": "Table 2", "unverified": True},
        plain | {"id": "wide", "variant": "wide", "protocol": "best"},
        plain | {"id": "wider", "protocol": "best"},
        plain | {"id": "blogs", "protocol": "last", "detail": True, "source": "a blog"},
    ]
    world.paper("alpha_2001", content)
    block = block_of_page("reported")
    assert lines_of(block) == [
        ["plain", "last", "0.95 ± 0.1 % (5 runs)", "0.95 % (unverified)", "Table 1; Table 2"],
        ["wide, plain", "best", "0.95 %", "–", "Table 1"],
    ]
    note = "- *plain*, test error: twice as good as before\n"
    assert note in block and note in section(text_of("README.md"), "alpha_2001")
    assert "- ±: the spread that the paper prints.\n" in block
    assert "- *best*: the best weights\n" in block and "- In detail, 1 more: [results" in block


def test_a_page_begins_with_what_is_claimed_what_was_measured_and_why_they_differ(world):
    content = world.paper_content()
    content["citation"] |= {"doi": "10.1/x", "arxiv": "1.2", "code": "https://code.example"}
    content["why"] = "The errors are {plain/last/test_error} and {wide/last/test_error}."
    world.paper("alpha_2001", content)
    block = block_of_page("in short")
    assert block.split("\n\n")[1].splitlines() == [
        "- *Claimed*: test error 0.95 % (Table 1): as printed.",
        "- *Measured here*: test error 0.95 ± 0.05 % (n = 3): **reproduced**; test error 3.33 ± 0.33 % (n = 3), on the "
        "edition resized: **other data**. All claims: 1 reproduced, 1 too few seeds.",
        "- *Why it differs*: The errors are 0.95 ± 0.05 % (n = 3) and not measured yet.",
    ]
    links = "[doi:10.1/x](https://doi.org/10.1/x). [arXiv:1.2](https://arxiv.org/abs/1.2)."
    assert f"2001. {links} [the authors' code](https://code.example).\n" in block
    assert links in text_of("README.md")


def test_a_paper_without_records_or_claims_has_its_three_lines_too(toy, monkeypatch, power):
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    toy.paper(content=content)
    told = "*Measured here*: not trained yet. All claims: 2 not attempted.\n- *Why it may differ*: nothing was measured"
    assert told in block_of_page("in short")
    toy.paper(content=content | {"claims": []})
    assert "*Measured here*: not trained yet. All claims: none." in block_of_page("in short")


def test_what_was_measured_beside_claims_that_nobody_tried_is_told(toy, record):
    content = toy.paper_content()
    claims = [claim for claim in content["claims"] if claim["variant"] != "plain"]
    toy.paper(content=content | {"claims": claims})
    toy.publish(*(record(seed, 1.0 + seed / 10) for seed in range(3)))
    assert (
        "*Measured here*: what is claimed is not trained yet; plain, test error (last) 1.10 ± 0.10 % (n = 3). "
        "All claims: 1 not attempted."
    ) in block_of_page("in short")


def test_what_was_measured_beside_is_told_as_what_is_claimed_is_measured_and_without_details(toy, record):
    content = toy.paper_content()
    (claim,) = (claim for claim in content["claims"] if claim["variant"] != "plain")
    detail = claim | {"id": "in-detail", "protocol": "detail", "detail": True}
    protocols = content["protocols"] | {"detail": "picture by picture"}
    toy.paper(content=content | {"claims": [claim, detail], "protocols": protocols})
    toy.publish(record(metrics={name: {"test_error": 1.5} for name in ("last", "best", "detail")}))
    (paths.ROOT / "README.md").write_text(PAGE)
    short = block_of_page("in short")
    assert "plain, test error (last) 1.50 % (n = 1)" in short and "(best)" not in short and "(detail)" not in short
    assert "last: 1.50 % (n = 1); best: 1.50 % (n = 1) |" in tables.tables()[paths.ROOT / "README.md"]


def test_one_line_is_of_what_was_measured_though_another_variant_is_the_default(toy, record):
    content = toy.paper_content() | {"headline": ["test_error", "psnr"]}
    paper = toy.paper(content=content)
    leads = []
    for records in ([], [record(variant="wide", metrics={"last": {"psnr": 30.0}})]):
        leads.append([row.variant for row in Comparison(paper, paper_rows(paper, records), records).lead])
    assert leads == [["plain"], ["wide"]]


def test_the_front_page_begins_with_how_much_of_it_is_measured(world):
    front = paths.ROOT / "README.md"
    front.write_text("\n".join(markers("coverage")))
    text = " ".join(tables.tables()[front].split())
    told = (
        "Of 4 claims in 2 papers, 3 (1 reproduced, 1 too few seeds, 1 failed) were measured by training here and none"
    )
    assert f"{told} by weights that others released; still to be measured: 1." in text


def test_a_failure_without_a_claim_is_seen_everywhere(world, failed_record):
    content = world.paper_content()
    content["claims"] = []
    world.paper("gamma_2020", content)
    (paths.PAPERS / "gamma_2020" / "README.md").write_text(PAGE)
    world.publish(failed_record(0, paper="gamma_2020"))
    files = tables.tables()
    results = [paths.RESULTS / f"comparison.{ending}" for ending in ("json", "csv", "tex")]
    for path in (*results, paths.RESULTS / "README.md", paths.RESULTS / "index.html", paths.ROOT / "README.md"):
        assert "failed" in files[path].replace(r"\_", "_").split("gamma_2020", 1)[1], path
    assert "**failed** (seed 0" in files[paths.PAPERS / "gamma_2020" / "README.md"]
    failed = ["plain", "–", "–", "official", "–", "–", "–", "**failed** (seed 0 failed: the loss is nan)"]
    assert failed in front_lines("A page")


def test_ideas_have_tables_of_their_own_and_a_file(toy, record, monkeypatch, power):
    monkeypatch.setattr(verdict, "power", power)
    content = toy.idea_content()
    content["ideas"].append(content["ideas"][0] | {"id": "again", "without": "beta_2010/wide", "unverified": True})
    toy.paper("beta_2010")
    toy.paper(content=content)
    for folder in (toy.root, paths.PAPERS / "alpha_2001", paths.PAPERS / "beta_2010"):
        (folder / "README.md").write_text(PAGE)
    toy.publish(*(record(k, 0.7, variant="wide") for k in range(3)), *(record(k, 0.9) for k in range(3)))
    files = tables.tables()
    ways = {
        paths.ROOT / "README.md": "results/records",
        paths.PAPERS / "alpha_2001" / "README.md": "../../results/records",
        paths.RESULTS / "README.md": "records",
    }
    for page, way in ways.items():
        idea = r"Sec. 2: width \| <more> helps"
        first, second = [line[line.index(idea) :] for line in lines_of(files[page]) if idea in line]
        links = [f"[{name}]({way}/alpha_2001/{name}/official)" for name in ("wide", "plain")]
        found = "−0.20 (−0.21 to −0.19) points (n = 3)"
        assert first[1:] == [" / ".join(links), "test error, last, official", "lower", found, "**holds**"]
        unverified = "**not attempted** (unverified)"
        assert second[1:] == ["wide / beta_2010/wide", "test error, last", "lower", "–", unverified]
        assert (page.parent / links[0].split("(")[1].rstrip(")")).is_dir()
        assert files[page].count("Ideas are what a paper claims") == 1
    assert "idea" not in files[paths.PAPERS / "beta_2010" / "README.md"].lower()
    ideas = json.loads(files[paths.RESULTS / "ideas.json"])
    assert [(idea["idea"], idea["verdict"], len(idea["records"])) for idea in ideas] == [
        ("width", "holds", 6),
        ("again", "not attempted", 0),
    ]


def test_details_stand_in_the_results_only(toy, record, monkeypatch, power):
    """A protocol of which every claim is a detail is one altogether."""
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    content["protocols"] |= {"one-by-one": ""}
    plain = content["claims"][0]
    content["claims"] += [
        plain | {"id": "best", "protocol": "best", "detail": True},
        plain | {"id": "one", "protocol": "one-by-one", "detail": True},
        plain | {"id": "open", "variant": "wide", "protocol": "one-by-one", "detail": True},
        plain | {"id": "best-train", "metric": "train_error", "tolerance": 0.078, "protocol": "best"},
    ]
    toy.paper(content=content)
    for folder in (toy.root, paths.PAPERS / "alpha_2001"):
        (folder / "README.md").write_text(PAGE)
    measured = {"test_error": 0.95, "train_error": 0.95}
    toy.publish(record(metrics=dict.fromkeys(("last", "best", "one-by-one"), measured)))
    everything = section(text_of("README.md"), "alpha_2001")
    assert len(lines_of(everything)) == 6 + 1 + 1 + 2  # rows, a group of records, a variant that waits, its claims
    assert lines_of(everything)[-2][:4] == ["wide", "test error", "one-by-one", "0.95 ± 0.19 %"]
    page = tables.tables()[paths.PAPERS / "alpha_2001" / "README.md"]
    overview = [line[1:3] for line in lines_of(page)[:-1]]
    assert overview == [["test error", "last"], ["training error", "best"], ["training error", "last"]]
    assert lines_of(page)[-1][:2] == ["wide", "last: PSNR 30.10 dB"]
    assert "Not run yet" not in page + text_of("index.html")
    assert "4 more rows, in detail: [results/README.md](../../results/README.md)." in page
    standing, *verdicts = front_lines("A page")
    assert [line[1:3] for line in verdicts] == [["test error", "last"], ["training error", "best"]]
    assert standing[-1] == "2 too few seeds, 1 not attempted"
    assert len(json.loads(text_of("comparison.json"))) == 8


def test_a_detail_stands_in_the_results_and_on_no_overview(world):
    content = world.paper_content()
    content["claims"][1]["detail"] = True
    world.paper("alpha_2001", content)
    written = tables.tables()
    overviews = [written[paths.ROOT / "README.md"], written[paths.PAPERS / "alpha_2001" / "README.md"]]
    assert "30.10" in written[paths.RESULTS / "README.md"] and "0.95 ± 0.19" in overviews[0] + overviews[1]
    assert [overview.count("| wide") for overview in overviews] == [0, 0]
    assert "| wide " not in overviews[1] and "| plain " in overviews[1]


def test_a_page_without_markers_is_left_alone(world):
    assert tables.tables()[paths.PAPERS / "beta_2010" / "README.md"] == "# Bare\n"


def test_an_empty_repository_has_tables_too(toy, monkeypatch, power):
    monkeypatch.setattr(verdict, "power", power)
    assert json.loads(text_of("comparison.json")) == []
    assert list(pandas.read_csv(io.StringIO(text_of("comparison.csv"))).columns) == FIELDS
    assert "The power of a verdict" in text_of("README.md")


def test_every_page_says_what_was_rounded_to_float16_and_what_it_measures(world, rounded_record):
    pages = ["README.md", "index.html", "../papers/alpha_2001/README.md"]
    said = f"rounded to float16; its sha256 is {'78' * 32}. It measures test error 0.97 % (last); before rounding, test"
    assert all(said not in tables.tables()[(paths.RESULTS / page).resolve()] for page in pages)
    world.publish(rounded_record)
    for page in pages:
        assert tables.tables()[(paths.RESULTS / page).resolve()].count(said) == 1, page


def test_papers_of_which_no_claim_was_tried_are_named(toy, record):
    papers = [toy.paper(), toy.paper("beta_2002"), toy.paper("gamma_2003")]
    measured = [[record(seed) for seed in range(3)], [], []]
    comparisons = [Comparison(p, paper_rows(p, of), of) for p, of in zip(papers, measured, strict=True)]
    assert coverage(comparisons).endswith("to be measured: 5, all of beta_2002 and gamma_2003 among them.")
