"""BibTeX of a paper, of this reproduction and of one measured number; and CITATION.cff, which it is made from."""

import datetime
import re
import subprocess

import pytest
import yaml

from common.base import paths
from common.base.errors import UsageError
from common.cli.citing import bibtex

CITATION = paths.ROOT / "CITATION.cff"
ROOT_KEYS = {  # of the schema of the Citation File Format 1.2.0
    "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords",
    "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
    "repository-code", "title", "type", "url", "version",
}  # fmt: skip


@pytest.fixture
def cited(toy):
    toy.root.mkdir(exist_ok=True)
    (toy.root / "CITATION.cff").write_text(CITATION.read_text())
    return lambda claim=None, content=None: bibtex(toy.paper(content=content), claim)


def fields(entry: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+) += \{(.*)\},?$", entry, re.MULTILINE))


def test_the_paper_and_this_reproduction_are_cited(cited):
    theirs, ours = cited()
    assert theirs == "@article{alpha2001}"
    assert ours.startswith("@software{reproduction-alpha-2001,\n")
    assert fields(ours)["title"].endswith(r"measured: On Shapes \& <Sizes>")
    assert fields(ours)["note"] == r"papers/alpha\_2001, records in results/records/alpha\_2001"


def test_a_claim_is_cited_with_value_seeds_commit_and_hash(toy, record, cited):
    toy.publish(*(record(seed, 0.9 + seed / 20) for seed in range(3)), record(0, 5.0, edition="resized"))
    (misc,) = cited("plain-test")[2:]
    assert misc.startswith("@misc{reproduction-alpha-2001-plain-test-official,\n")
    told = fields(misc)
    assert told["title"] == r"test error of On Shapes \& <Sizes> (plain, last, official)"
    assert told["note"] == (r"0.95 $\pm$ 0.05 \% (n = 3); the paper (Table 1): 0.95 $\pm$ 0.19 \%; reproduced")
    assert f"commit {'12' * 20}; results/records/alpha\\_2001/plain/official: " in told["howpublished"]
    (command,) = re.findall("`(.*)`", told["howpublished"])
    folder = paths.RECORDS / "alpha_2001" / "plain" / "official"
    printed = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert told["howpublished"].endswith(f" gives {printed.split()[0]}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "CITATION.cff: cannot be read: No such file or directory"),
        (lambda file: file.write_text("title: Only that"), "CITATION.cff: version"),
    ],
)
def test_a_missing_or_damaged_citation_file_is_told(toy, cited, damage, said):
    damage(toy.root / "CITATION.cff")
    with pytest.raises(UsageError, match=said):
        cited()


def test_weights_in_float16_are_named_with_their_hash(toy, rounded_record, cited):
    toy.publish(rounded_record)
    note = fields(cited()[1])["note"]
    assert f"rounded to float16; its sha256 is {'78' * 32}. It measures test error 0.97 \\% (last); before" in note


def test_each_edition_that_counts_is_an_entry(toy, record, cited):
    toy.publish(record(0), record(0, edition="bundle"))
    assert [entry.partition(",")[0].rpartition("-")[2] for entry in cited("plain-test")[2:]] == ["official", "bundle"]


def test_released_weights_are_cited_as_such(toy, released_record, cited):
    toy.publish(released_record(0.94))
    (misc,) = cited("plain-test", toy.released_content())[2:]
    assert fields(misc)["note"].startswith(r"released weights: 0.94 \%; the paper (Table 1): ")
    assert "alpha\\_2001/released/theirs: `sha256sum shapes.json | sha256sum` gives " in fields(misc)["howpublished"]


def test_what_was_not_measured_is_not_cited(record, toy, failed_record, cited):
    with pytest.raises(UsageError, match="alpha_2001 has no claim 'plain-tess'. Did you mean plain-test?"):
        cited("plain-tess")
    for publish in ((), (failed_record(0),), (record(0, edition="resized"),)):
        toy.publish(*publish)
        with pytest.raises(UsageError, match="Nothing has been measured of plain-test"):
            cited("plain-test")


def test_the_citation_file_has_what_its_schema_requires():
    content = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0" and content.keys() <= ROOT_KEYS
    assert all(isinstance(content[key], str) and content[key] for key in ("message", "title"))
    assert content["authors"] and all(
        "name" in a or {"family-names", "given-names"} & a.keys() for a in content["authors"]
    )
    assert content["type"] in ("software", "dataset") and isinstance(content["version"], str)
    assert isinstance(content["date-released"], datetime.date) and content["license"] == "MIT"


def test_weights_that_rounding_does_not_move_are_said_to_measure_the_same(toy, rounded_record, cited):
    weights = rounded_record.weights
    unmoved = weights.float16.model_copy(update={"metrics": rounded_record.remeasured})
    weights = weights.model_copy(update={"float16": unmoved})
    toy.publish(rounded_record.model_copy(update={"weights": weights}))
    assert fields(cited()[1])["note"].endswith("before rounding, the same.")
