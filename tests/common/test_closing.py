"""The table that closes a run, and what it makes of failures and of --check."""

from pathlib import Path

import pytest

from common.base.errors import CheckFailed, NumbersError
from common.cli import closing
from common.cli.closing import Closing, print_closing
from common.cli.run_seeds import recorded_command


def close(paper, records, words=("alpha_2001",), runs_dir=Path("runs")) -> Closing:
    return closing.close(paper, records, runs_dir, list(words))


@pytest.fixture
def lines(toy, monkeypatch):
    """The cells of the closing table of some records."""

    def lines(records, content=None) -> list[list[str]]:
        shown = []
        monkeypatch.setattr(closing, "print_table", lambda title, columns, lines: shown.extend(lines))
        print_closing(close(toy.paper(content=content), records))
        return shown

    return lines


def test_rows_come_in_the_order_of_the_tables(record, lines):
    metrics = {"psnr": 30.0, "train_error": 1.0, "test_error": 0.95}
    records = [record(metrics={"best": metrics, "last": metrics})]
    assert [line[:2] for line in lines(records)] == [
        ["test error", "last"],  # the claim
        ["test error", "best"],
        ["training error", "last"],
        ["training error", "best"],
        ["PSNR", "last"],
        ["PSNR", "best"],
    ]


def test_paper_published_and_this_run_stand_side_by_side(toy, record, lines):
    toy.publish(*(record(seed, 0.9 + seed / 20) for seed in range(3)))
    assert lines([record(0, 1.0)]) == [
        ["test error", "last", "0.95 ± 0.19 %", "0.95 ± 0.05 % (n = 3)", "1.00 % (n = 1)", "too few seeds"]
    ]


@pytest.mark.parametrize(
    ("edition", "published"),
    [
        ("official", "1.00 % (n = 1)"),
        ("bundle", "2.00 % (n = 1)"),
        ("resized", "3.00 % (n = 1)"),
        ("stand-in", "1.00 % (n = 1), official"),
    ],
)
def test_a_run_is_shown_beside_its_own_edition_or_else_the_official_one(toy, record, lines, edition, published):
    for value, name in enumerate(("official", "bundle", "resized"), 1):
        toy.publish(record(0, float(value), edition=name))
    ((_, _, _, beside, this, _),) = lines([record(0, 9.0, edition=edition)])
    assert (beside, this) == (published, "9.00 % (n = 1)")


@pytest.mark.parametrize(
    ("edition", "printed"),
    [("official", "0.95 ± 0.19 %"), ("bundle", "0.95 ± 0.19 %"), ("resized", "0.95 %"), ("stand-in", "–")],
)
def test_what_the_paper_prints_never_stands_beside_a_stand_in(toy, record, lines, edition, printed):
    content = toy.paper_content()
    records = [record(0, 9.0, edition=edition)]
    assert lines(records, content)[0][2] == printed
    content["claims"][0]["unverified"] = True
    assert lines(records, content)[0][2] == (printed if printed == "–" else f"{printed} (unverified)")


def test_a_run_ends_with_its_folder_and_what_is_in_it(toy, record, tmp_path, capsys):
    folder = tmp_path / "alpha_2001" / "plain" / "full-official"
    for name in ("record.json", "weights.safetensors", "lock"):
        (folder / "seed-0").mkdir(parents=True, exist_ok=True)
        (folder / "seed-0" / name).touch()
    print_closing(close(toy.paper(), [record(0)], runs_dir=tmp_path))
    said = capsys.readouterr().out
    kept = "record.json (all numbers), weights.safetensors (the network)"
    assert f"Kept in {folder}, for each seed: {kept}." in said.splitlines()
    modified = close(toy.paper(), [record(0, modified=True, preset="quick")], runs_dir=tmp_path).folder
    assert modified == folder.with_name("quick-official-modified-abababab")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["alpha_2001"], "alpha_2001 --seeds 0,1,2"),
        (["alpha_2001", "--seeds", "1", "--fresh"], "alpha_2001 --seeds 0,1,2"),
        (["alpha_2001", "--seeds=1", "--data-dir", "my data"], "alpha_2001 --data-dir 'my data' --seeds 0,1,2"),
        (["all", "--device", "cpu"], "alpha_2001 --device cpu --seeds 0,1,2"),
    ],
)
def test_where_seeds_are_missing_the_command_is_given(toy, record, capsys, words, command):
    ended = close(toy.paper(), [record(1)], words)
    print_closing(ended)
    assert f"A verdict takes 3 seeds: bash reproduce.sh {command}" in capsys.readouterr().out.splitlines()
    assert ended.as_dict()["all_seeds"] == f"bash reproduce.sh {command}"
    assert close(toy.paper(), [record(seed) for seed in range(3)], words).command is None
    for how in ({"preset": "quick"}, {"modified": True}, {"edition": "stand-in"}, {"edition": "resized"}):
        assert close(toy.paper(), [record(1, **how)], words).command is None


def test_failed_seeds_are_in_the_table_and_named(toy, record, failed_record, lines):
    records = [record(0), failed_record(1), record(2), failed_record(3)]
    assert lines(records)[0][4:] == ["0.95 ± 0.00 % (n = 2)", "inconclusive"]
    with pytest.raises(NumbersError, match="^A NaN or an infinity appeared in seed 1, 3 of plain.$"):
        close(toy.paper(), records).require_no_failure()
    close(toy.paper(), [record(0)]).require_no_failure()


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ({}, "reproduced"),
        ({"preset": "quick"}, "–"),
        ({"preset": "smoke"}, "–"),
        ({"modified": True}, "–"),
        ({"edition": "stand-in"}, "–"),
        ({"edition": "resized"}, "other data"),
    ],
)
def test_only_the_papers_own_run_gets_a_verdict(toy, record, lines, how, shown):
    records = [record(seed, 0.9 + seed / 20, **how) for seed in range(3)]
    assert lines(records)[0][-1] == shown
    content = toy.paper_content()
    content["claims"][0]["unverified"] = True
    assert lines(records, content)[0][-1] == shown
    (row,) = close(toy.paper(), records).as_dict()["rows"]
    assert row["verdict"] == (None if shown == "–" else shown)


def test_the_json_of_a_run_says_what_it_is_and_what_is_published(toy, record, failed_record):
    toy.publish(*(record(seed, 0.9 + seed / 20) for seed in range(3)))
    told = close(toy.paper(), [record(0, 1.0, preset="quick"), failed_record(4, preset="quick")]).as_dict()
    assert {name: told[name] for name in ("variant", "preset", "modified", "standin", "seeds", "failures")} == {
        "variant": "plain",
        "preset": "quick",
        "modified": False,
        "standin": False,
        "seeds": [0, 4],
        "failures": [{"seed": 4, "failure": "the loss is nan"}],
    }
    (row,) = told["rows"]
    published = row["published"]
    assert (published["edition"], published["n"], round(published["mean"], 9)) == ("official", 3, 0.95)
    assert round(published["sd"], 9) == 0.05 and (row["reported"], row["reported_text"]) == (0.95, "0.95")
    (row,) = close(toy.paper(), [record(0, variant="wide", metric="psnr")]).as_dict()["rows"]
    assert row["published"] is None


def test_where_the_bits_differ_so_do_libraries_that_both_records_name(toy, record):
    libraries = {"scikit_learn": "1.9", "scipy": "1.17", "pillow": "13.0"}
    environment = record().environment.model_dump(exclude_unset=True)
    this = record(0, weights={"sha256": "78" * 32}, environment=environment | libraries)
    toy.publish(record(0))  # of before libraries were recorded
    assert close(toy.paper(), [this]).bits[0].endswith("; nothing that the record names differs.")
    toy.publish(record(0, environment=environment | libraries | {"scipy": "1.16"}))
    assert close(toy.paper(), [this]).bits[0].endswith("; these differ: scipy (1.16 there, 1.17 here).")


def test_only_failed_seeds_make_a_table_too(failed_record, lines):
    assert lines([failed_record(0)]) == [["test error", "last", "0.95 ± 0.19 %", "–", "–", "failed"]]
    assert lines([failed_record(0, edition="stand-in")]) == [["–", "–", "–", "–", "–", "failed"]]


def test_bits_are_compared_of_finished_full_runs_on_real_data(toy, record, failed_record):
    toy.publish(record(0), failed_record(1))
    other = {"sha256": "78" * 32}
    bits = close(toy.paper(), [record(0), failed_record(1), record(2)]).bits
    assert [text.split(":")[0] for text in bits] == ["seed 0", "seed 2"]
    assert "the very bits" in bits[0] and "no published record" in bits[1]
    assert "not the bits" in close(toy.paper(), [record(0, weights=other)]).bits[0]
    assert close(toy.paper(), [record(0, preset="quick")]).bits == []


@pytest.mark.parametrize(
    ("values", "how", "complaint"),
    [
        ([0.95] * 3, {}, None),
        ([0.1] * 3, {}, None),  # exceeds
        ([5.0] * 3, {}, "plain-test is not reproduced"),
        ([0.7, 0.9, 1.3], {}, "plain-test is consistent"),
        ([1.13, 1.15, 1.16], {}, "plain-test is inconclusive"),
        ([0.95] * 2, {}, "plain-test is too few seeds"),
        ([0.95] * 3, {"edition": "resized"}, "plain-test is not attempted"),
        ([0.95] * 3, {"edition": "stand-in"}, "only a full, unmodified run on real data"),
        ([0.95] * 3, {"preset": "quick"}, "only a full, unmodified run on real data"),
        ([0.95] * 3, {"modified": True}, "only a full, unmodified run on real data"),
    ],
)
def test_check_is_content_with_settled_claims_only(toy, record, values, how, complaint):
    ended = close(toy.paper(), [record(seed, value, **how) for seed, value in enumerate(values)])
    if complaint is None:
        ended.require_claims()
    else:
        with pytest.raises(CheckFailed, match=f"^--check: {complaint}"):
            ended.require_claims()


def test_a_recorded_command_names_no_folder_of_the_user():
    """As README says: no host, no user."""
    words = [
        "alpha_2001",
        "--data-dir",
        "/home/me",
        "--seeds=1",
        "--runs-dir=/home/me",
        "--data-dir=/me",
        "--runs-dir",
        "x",
    ]
    assert recorded_command(words) == "bash reproduce.sh alpha_2001 --seeds=1"
