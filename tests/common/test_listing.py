"""What `bash reproduce.sh` lists, and that it does no work twice: it must stay quick."""

import json
import re

import pytest

from common.base import paths
from common.base.errors import UsageError
from common.claims.papers import find_papers, load_paper
from common.cli import listing


@pytest.fixture
def counted(monkeypatch):
    """How often a function of the listing was called."""

    def counted(name: str) -> list:
        calls, honest = [], getattr(listing, name)
        monkeypatch.setattr(listing, name, lambda *words: calls.append(words) or honest(*words))
        return calls

    return counted


def entries(capsys) -> list[dict]:
    listing.show_variants(load_paper("alpha_2001"), as_json=True)
    return json.loads(capsys.readouterr().out)


def test_every_variant_is_listed_with_its_data_and_time_per_seed(toy, record, failed_record, capsys):
    toy.paper()
    toy.put_data(paths.DATA, "resized")
    minutes = [{"wall_seconds": 60.0 * n, "training_seconds": 1.0, "samples_per_second": 1.0} for n in (1, 2, 30)]
    toy.publish(record(0, times=minutes[0]), record(1, times=minutes[1]), failed_record(2, times=minutes[2]))
    plain, wide = entries(capsys)
    assert (plain["variant"], plain["default"], plain["data"], plain["minutes"]) == ("plain", True, "resized", 1.5)
    assert (wide["variant"], wide["default"], wide["data"], wide["minutes"]) == ("wide", False, "resized", None)


def test_a_time_is_that_of_a_gpu_only_where_no_cpu_was_timed(toy, record, capsys):
    def on_gpu(seed, seconds):
        of = record(seed, times={"wall_seconds": seconds, "training_seconds": 1.0, "samples_per_second": 1.0})
        return of.model_copy(update={"environment": of.environment.model_copy(update={"device": "NVIDIA H100"})})

    toy.paper()
    toy.publish(on_gpu(0, 120.0), on_gpu(1, 240.0))
    plain, wide = entries(capsys)
    assert (plain["minutes"], plain["device"]) == (3.0, "GPU") and (wide["minutes"], wide["device"]) == (None, None)
    listing.show_variants(load_paper("alpha_2001"), as_json=False)
    assert capsys.readouterr().out.splitlines()[4].rstrip().endswith("  3.0 min per seed on a GPU")
    listing.show_papers(as_json=False)
    assert "3.0 min GPU" in capsys.readouterr().out
    toy.publish(record(2))
    assert [(e["minutes"], e["device"]) for e in entries(capsys)] == [(1.0, "cpu"), (None, None)]


def test_what_was_not_measured_is_estimated_as_its_claims_or_the_variant_say(toy, record, capsys):
    """As the claim that needs most."""
    content = toy.paper_content()
    content["claims"].append(content["claims"][0] | {"id": "sooner", "protocol": "best", "needs": {"hours": 0.1}})
    content["variants"]["plain wide"] = content["variants"]["plain"]
    content["variants"]["without a claim"] = content["variants"]["plain"] | {"needs": {"hours": 3}}
    content["claims"][1]["needs"] = {"hours": 0.2, "device": "GPU"}
    toy.paper(content=content)
    assert [e["estimate"] for e in entries(capsys)] == [
        {"hours": 0.5, "device": "cpu"}, {"hours": 0.2, "device": "GPU"}, None, {"hours": 3, "device": "cpu"},
    ]  # fmt: skip
    listing.show_variants(load_paper("alpha_2001"), as_json=False)
    plain, wide, both, said = capsys.readouterr().out.splitlines()[4:8]
    assert plain.rstrip().endswith("  about 30 min (estimate)")
    assert wide.rstrip().endswith("  about 12 min on a GPU (estimate)")
    assert both.rstrip().endswith("  not measured") and said.rstrip().endswith("  about 3.0 h (estimate)")
    toy.publish(record())
    listing.show_variants(load_paper("alpha_2001"), as_json=False)
    assert capsys.readouterr().out.splitlines()[4].rstrip().endswith("  60 s per seed")


@pytest.mark.parametrize(("damage", "state"), [(None, "absent"), (b"", "damaged")])
def test_absent_and_damaged_data_is_told(toy, capsys, damage, state):
    toy.paper()
    if damage is not None:
        (toy.put_data(paths.DATA) / "test.bin").write_bytes(damage)
    assert {entry["data"] for entry in entries(capsys)} == {state}


def test_records_are_read_and_data_is_looked_for_once(toy, record, capsys, counted):
    toy.paper()
    toy.publish(record())
    located, read = counted("locate"), counted("published_records")
    assert len(entries(capsys)) == 2
    assert len(located) == len(read) == 1


def overview(capsys) -> list[str]:
    """The line of the only paper, word by word, and the lines below the list."""
    listing.show_papers(as_json=False)
    heading, line, *below = capsys.readouterr().out.splitlines()
    assert re.split("  +", heading) == ["paper", "best row: here (paper)", "verdict", "data", "per seed"]
    return [*re.split("  +", line), *below]


def test_a_paper_is_listed_in_one_line_with_its_best_row(toy, record, released_record, capsys):
    toy.paper(content=toy.released_content())
    assert overview(capsys)[:5] == ["alpha_2001", "test error – (0.95)", "not attempted", "no", "~30 min"]
    folder = toy.put_data(paths.DATA)
    toy.publish(record(0, 9.0, edition="resized"))
    assert overview(capsys)[1:4] == ["test error 9.00 (0.95)", "other data", "yes"]
    toy.publish(released_record(0.94))
    line = overview(capsys)
    assert line[1:3] == ["test error 0.94 (0.95)", "confirmed"] and line[6].startswith("confirmed, not confirmed: by ")
    toy.publish(*(record(seed, 30.1, "psnr", variant="wide") for seed in range(3)))
    assert overview(capsys)[1:3] == ["PSNR 30.10 (30.10)", "reproduced"]
    (folder / "test.bin").write_bytes(b"")
    toy.publish(*(record(seed, 0.95) for seed in range(3)))
    assert overview(capsys)[1:5] == ["test error 0.95 (0.95)", "reproduced", "bad", "60 s"]


def test_the_papers_that_are_here_fit_80_columns(capsys):
    listing.show_papers(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > len(find_papers()) and max(map(len, lines)) <= 80


def test_the_data_of_a_paper_is_one_json_document(toy, capsys):
    toy.paper()
    folder = toy.put_data(paths.DATA)
    for name in ("alpha_2001", "shapes"):
        listing.fetch_data(name, as_json=True)
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["dataset"], found["edition"], found["folder"]) == ("shapes", "official", str(folder))
        assert found["files"].keys() == {"train.bin", "test.bin"}
    with pytest.raises(UsageError, match="Did you mean shapes?"):
        listing.fetch_data("shape", as_json=True)
