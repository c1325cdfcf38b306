"""results/index.html: whole, self-contained, and in a browser, where one is installed, usable and legible."""

import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from common.base import paths
from common.claims import verdict
from common.claims.comparison import all_comparisons
from common.pages.html import FOLDED, KINDS, page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = Path(__file__).with_name("probe.js")
VOID = ("meta", "br", "img", "input")


class Page(html.parser.HTMLParser):
    """What is in a page; every tag is closed by its own."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, name: str, tag: str = "") -> list[str]:
        return [of[name] for kind, of in self.tags if name in of and tag in ("", kind)]


@pytest.fixture(scope="module")
def whole() -> tuple[list, str]:
    """All comparisons of this repository, and the page of them."""
    comparisons = all_comparisons()
    return comparisons, page(comparisons)


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The table's rows by their anchors."""
    return {of["id"]: of for tag, of in Page(text).tags if tag == "tbody" and "data-kind" in of}


def cells(text: str, anchor: str) -> str:
    """A row's first line."""
    return text.split(f'<tbody id="{anchor}"')[1].split("</tr>")[0]


def test_the_page_is_balanced_escaped_and_complete(world, records):
    found = Page(page(all_comparisons()))
    assert list(rows_of(page(all_comparisons()))) == [
        "alpha_2001.plain-test", "alpha_2001.plain.last.test_error.resized", "alpha_2001.wide-psnr",
        "beta_2010.plain-test", "beta_2010.wide-psnr",
    ]  # fmt: skip
    assert "On Shapes & <Sizes>" in found.text and "the loss is <nan> & 100 % wrong" in found.text
    assert "bash reproduce.sh beta_2010 --variant wide --seeds 0,1,2" in found.text
    (version,) = {record.environment.torch for record in records}
    assert f"abacus, PyTorch {version}, 1 thread, float32" in found.text
    assert "records/alpha_2001/plain/official/seed-2.json" in found.values("href")


@pytest.mark.parametrize("claims", [[], None])
def test_a_paper_without_any_record_is_there_too(toy, claims):
    content = toy.paper_content()
    toy.paper(content=content if claims is None else content | {"claims": claims})
    text = page(all_comparisons())
    assert "not trained yet" in Page(text).text and len(rows_of(text)) == (2 if claims is None else 0)


def test_a_claim_keeps_its_anchor_when_it_is_measured(toy, record):
    toy.paper()
    toy.publish(record(edition="bundle"))
    assert list(rows_of(page(all_comparisons()))) == ["alpha_2001.plain-test", "alpha_2001.wide-psnr"]
    toy.publish(record())
    assert list(rows_of(page(all_comparisons())))[:2] == ["alpha_2001.plain-test", "alpha_2001.plain-test.bundle"]


def test_what_was_measured_on_other_data_has_the_printed_number_in_grey(world):
    text = page(all_comparisons())
    row = cells(text, "alpha_2001.plain.last.test_error.resized")
    assert '<td class="number grey" data-key="0.95">0.95 %</td>' in row and ">other data</span>" in row
    assert "grey" not in cells(text, "alpha_2001.plain-test")


def test_what_others_printed_never_looks_like_the_paper_failing(toy, record):
    content = toy.paper_content()
    content["claims"][0] |= {"detail": True, "source": "a blog"}
    toy.paper(content=content)
    toy.publish(*(record(k, 9.0 + k / 100) for k in range(3)))
    text = page(all_comparisons())
    assert rows_of(text)["alpha_2001.plain-test"]["data-kind"] == "source"
    row = cells(text, "alpha_2001.plain-test")
    assert "0.95 ± 0.19 % (a blog)" in row and '<span class="verdict ">not reproduced</span>' in row
    assert all_comparisons()[0].standing == {verdict.NOT_ATTEMPTED: 1}


def test_ideas_have_a_table_of_their_own(toy, record):
    assert "ideas" not in Page(page([])).values("id")
    toy.paper(content=toy.idea_content())
    toy.publish(*(record(k, 0.7, variant="wide") for k in range(3)), *(record(k, 0.9) for k in range(3)))
    text = page(all_comparisons())
    row = cells(text, "alpha_2001.width")
    assert "width | &lt;more&gt; helps<small>alpha_2001, Sec. 2</small>" in row
    assert '<a href="records/alpha_2001/wide/official/">wide</a>' in row
    assert "−0.20 (−0.21 to −0.19) points (n = 3)" in row and '<span class="verdict good">holds</span>' in row
    assert "1 holds" in " ".join(Page(text).text.split())  # on its card


def test_anchors_are_unique_and_every_row_of_the_comparison_has_one(whole):
    comparisons, text = whole
    names = Page(text).values("id")
    assert len(names) == len(set(names))
    assert len(rows_of(text)) == sum(len(of.rows) for of in comparisons)
    claims = {f"{of.paper.name}.{claim.id}" for of in comparisons for claim in of.paper.claims}
    assert claims and claims <= rows_of(text).keys()
    ideas = {f"{of.paper.name}.{idea.id}" for of in comparisons for idea in of.paper.ideas}
    assert ideas and ideas <= set(names)


def test_links_lead_to_files_of_the_repository_or_to_papers_and_code(whole):
    _, text = whole
    found = Page(text)
    places = set(found.values("href") + found.values("src"))
    for place in places:
        if place.startswith("#"):
            assert place[1:] in found.values("id")
        elif not place.startswith(("https://doi.org/", "https://arxiv.org/abs/", "https://github.com/")):
            assert (paths.RESULTS / place.partition("#")[0]).exists(), place
    assert any(place.startswith("https://doi.org/") for place in places)


def test_nothing_is_fetched_from_elsewhere(whole):
    _, text = whole
    found = Page(text)
    assert not {tag for tag, _ in found.tags} & {"link", "iframe", "object", "embed", "base"}
    assert found.values("src", "script") == [] and found.values("srcset") == []
    assert all(not re.match(r"\w+:|//", place) for place in found.values("src"))
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)


# ---- in a browser ----------------------------------------------------------------


def browse(folder: Path, text: str, hidden: str, width: int, dark: bool) -> dict:
    """What the probe saw of a page that lies in this repository's results."""
    for name in ("figures", "records", "weights"):
        if (paths.RESULTS / name).exists():
            (folder / name).symlink_to(paths.RESULTS / name)
    file = folder / "index.html"
    script = f"const HIDDEN = {json.dumps(hidden)};\n{PROBE.read_text()}"
    file.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    words += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
    words += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", file.as_uri()]
    done = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120, env=os.environ)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return json.loads(html.unescape(re.search('<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: neither chromium nor google-chrome is installed")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide, light", "phone, dark"])
def test_in_a_browser_it_filters_sorts_finds_and_can_be_read(whole, tmp_path, width, dark):
    _, text = whole
    hidden = next(name for name, row in rows_of(text).items() if row["data-kind"] in FOLDED)
    told = browse(tmp_path, text, hidden, width, dark)
    assert "error" not in told
    assert told["beyond"] <= 0  # nothing to scroll sideways
    assert told["kinds"] and set(told["kinds"]) <= KINDS.keys() - set(FOLDED)
    assert told["opened"] == 3
    assert told["pale"] == [] and told["notices"] > 10
    assert told["verdicts"] == [verdict.NOT_ATTEMPTED]
    assert len(set(told["papers"])) == 1
    numbers = [float(key) for key in told["sorted"] if key]
    assert numbers == sorted(numbers, reverse=True) and not any(told["sorted"][len(numbers) :])
    assert told["headings"][2] == "descending"
    assert told["order"] == list(rows_of(text))
    assert (told["before"], told["after"]) == (False, True)
