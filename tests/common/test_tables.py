"""Tables from a made-up repository: complete, the same bytes every time, and readable by others."""

import csv
import functools
import html.parser
import io
import json
from pathlib import Path

import pandas
import pytest

from common import layout, tables, verdict
from common.papers import load_paper
from common.tables import BEGIN, END

FIELDS = [
    "paper", "claim", "variant", "dataset", "edition", "metric", "protocol", "reported", "tolerance", "mean", "sd", "n",
    "low", "high", "verdict", "records", "note",
]  # fmt: skip
PAGE = f"# A page\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"


@pytest.fixture(scope="module")
def power():
    return functools.cache(verdict.power)


@pytest.fixture
def records(record, failed_record) -> list:
    return [
        *(record(k, value) for k, value in enumerate((0.9, 0.95, 1.0))),
        *(record(k, 31.0 + k, "psnr", variant="wide") for k in range(2)),
        *(record(k, 3.0 + k / 3, edition="resized") for k in range(3)),
        failed_record(0, "the loss is <nan> & 100 % wrong", paper="beta_2010"),
    ]


@pytest.fixture
def world(toy, records, monkeypatch, power):
    """Two papers, one with a page that has markers and one with a page that has none, and a front page."""
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    content["claims"][1]["unverified"] = True
    for name in ("alpha_2001", "beta_2010"):
        toy.paper(name, content)
    for folder in (toy.root, layout.PAPERS / "alpha_2001"):
        (folder / "README.md").write_text(PAGE)
    (layout.PAPERS / "beta_2010" / "README.md").write_text("# Bare\n")
    toy.publish(*records)
    return toy


def text_of(name: str) -> str:
    return tables.tables()[layout.RESULTS / name]


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
    assert first == {path: text.encode() for path, text in tables.tables().items()}
    tables.rebuild()
    assert first == {path: path.read_bytes() for path in written}


def test_another_value_gives_other_tables(world, record):
    before = tables.tables()
    world.publish(record(0, 0.5))
    after = tables.tables()
    assert [path for path in before if before[path] == after[path]] == [layout.PAPERS / "beta_2010" / "README.md"]


def test_every_claim_has_a_row_in_the_results(world):
    page = text_of("README.md")
    for paper in map(load_paper, ("alpha_2001", "beta_2010")):
        section = page.split(f"## {paper.name}: ")[1].split("\n## ")[0].splitlines()
        for claim in paper.claims:
            of_variant = [line for line in section if line.startswith(f"| {claim.variant} ")]
            assert sum(claim.reported in line for line in of_variant) == 1, claim.id


def test_verdicts_and_their_reasons_stand_in_the_results(world):
    page = text_of("README.md")
    assert "0.95 ± 0.05 % (n = 3) | **reproduced** | last" in " ".join(page.split())
    assert "seed 0 failed: the loss is <nan>" in page
    assert "**too few seeds** (unverified" in page
    assert "**no published number**" in page


def test_every_record_is_linked(world, records):
    page = text_of("README.md")
    for record in records:
        path = record.path().relative_to(layout.RESULTS)
        assert f"({path})" in page and record.path().exists()


def test_comparison_json_has_its_fields_and_one_object_a_row(world):
    rows = json.loads(text_of("comparison.json"))
    assert all(list(row) == FIELDS for row in rows)
    assert [(row["paper"], row["claim"], row["verdict"]) for row in rows] == [
        ("alpha_2001", "plain-test", "reproduced"),
        ("alpha_2001", "wide-psnr", "too few seeds"),
        ("alpha_2001", None, "no published number"),
        ("beta_2010", "plain-test", "failed"),
        ("beta_2010", "wide-psnr", "not attempted"),
    ]


def test_csv_reads_back_as_the_same_rows(world):
    rows = json.loads(text_of("comparison.json"))
    text = text_of("comparison.csv")
    frame = pandas.read_csv(io.StringIO(text), dtype={"reported": str})
    assert list(frame.columns) == FIELDS
    assert frame["n"].tolist() == [row["n"] for row in rows]
    for column in ("tolerance", "mean", "sd", "low", "high", "reported", "note"):
        read = frame[column].astype(object).where(frame[column].notna(), None).tolist()
        assert read == [None if row[column] == "" else row[column] for row in rows], column
    assert [line["records"].split() for line in csv.DictReader(io.StringIO(text))] == [row["records"] for row in rows]


def test_latex_is_escaped_and_balanced(world):
    text = text_of("comparison.tex")
    lines = [line for line in text.splitlines() if "&" in line]
    assert len(lines) == 6  # the heading and five rows
    assert {line.count(" & ") for line in lines} == {6}
    assert r"alpha\_2001" in text and r"0.95 $\pm$ 0.19 \%" in text
    bare = text.replace(r"\_", "").replace(r"\%", "")
    assert "_" not in bare and "%" not in bare
    assert text.isascii()
    assert text.count(r"\begin{") == text.count(r"\end{") == 1


class Balance(html.parser.HTMLParser):
    """Collects text and checks that every tag is closed by its own."""

    VOID = ("meta", "br", "img")

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.rows = 0
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.rows += tag == "tr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_balanced_escaped_and_complete(world):
    page = Balance()
    page.feed(text_of("index.html"))
    page.close()
    assert page.open == []
    assert page.rows == 2 + 5  # a heading for each paper, and the rows
    assert "On Shapes & <Sizes>" in page.text
    assert "the loss is <nan> & 100 % wrong" in page.text


def test_figures_that_exist_are_shown(world):
    folder = layout.FIGURES / "alpha_2001"
    folder.mkdir(parents=True)
    (folder / "curve.png").write_bytes(b"")
    files = tables.tables()
    assert "![curve](../../results/figures/alpha_2001/curve.png)" in files[layout.PAPERS / "alpha_2001" / "README.md"]
    assert '<img src="figures/alpha_2001/curve.png"' in files[layout.RESULTS / "index.html"]


def test_what_is_between_the_markers_is_replaced_and_nothing_else(world):
    for page in (layout.PAPERS / "alpha_2001" / "README.md", layout.ROOT / "README.md"):
        text = tables.tables()[page]
        before, rest = text.split(BEGIN)
        block, after = rest.split(END)
        assert before == PAGE.split(BEGIN)[0] and after == PAGE.split(END)[1]
        assert "old" not in block and "**reproduced**" in block
        page.write_text(text)
        assert tables.tables()[page] == text


def test_the_front_page_has_claims_only(world):
    block = tables.tables()[layout.ROOT / "README.md"]
    assert "beta_2010" in block and "no published number" not in block


def test_a_detail_stands_in_the_results_and_on_no_overview(world):
    content = world.paper_content()
    content["claims"][1]["detail"] = True
    world.paper("alpha_2001", content)
    written = tables.tables()
    overviews = [written[layout.ROOT / "README.md"], written[layout.PAPERS / "alpha_2001" / "README.md"]]
    assert "30.10" in written[layout.RESULTS / "README.md"] and "0.95 ± 0.19" in overviews[0] + overviews[1]
    assert [overview.count("| alpha_2001 | wide") for overview in overviews] == [0, 0]
    assert "| wide " not in overviews[1] and "| plain " in overviews[1]


def test_a_page_without_markers_is_left_alone(world):
    assert tables.tables()[layout.PAPERS / "beta_2010" / "README.md"] == "# Bare\n"


def test_an_empty_repository_has_tables_too(toy, monkeypatch, power):
    monkeypatch.setattr(verdict, "power", power)
    assert json.loads(text_of("comparison.json")) == []
    assert list(pandas.read_csv(io.StringIO(text_of("comparison.csv"))).columns) == FIELDS
    assert "The power of a verdict" in text_of("README.md")
