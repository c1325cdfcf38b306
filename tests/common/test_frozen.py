"""What a claim is judged by stood before it was measured, or verify says that it did not."""

import subprocess

import pytest

from common.base import paths
from common.publishing.frozen import frozen_faults, terms_of
from common.publishing.history import NoHistory
from common.publishing.verify import PASSED, SKIPPED, WRONG, _claims


@pytest.fixture
def commit(toy, git):
    """Writes the toy's paper.yaml and commits everything: the new commit."""

    def commit(content=None) -> str:
        toy.paper(content=content)
        git("add", "--all")
        git("commit", "--allow-empty", "-qm", "x")
        return git("rev-parse", "HEAD")

    return commit


@pytest.fixture
def ran_from(toy, record):
    """Publishes the record of one seed that ran from a commit."""

    def ran_from(commit: str, seed: int = 0, **how) -> None:
        toy.publish(record(seed, code={"commit": commit, "committed": True, "sources": "34" * 32}, **how))

    return ran_from


def more_seeds(content):
    content["variants"]["plain"]["seeds"] = 5


def another_number(content):
    content["claims"][0]["reported"] = "0.94"  # whose margin by the rule is the same


def another_margin(content):
    content["claims"][0].update(spread={"sd": 0.2}, tolerance=0.4)


def another_protocol(content):
    content["claims"][0]["protocol"] = "best"


def one_more_claim(content):
    content["claims"].append(content["claims"][0] | {"id": "more", "protocol": "best"})


def one_claim_less(content):
    del content["claims"][0]
    content["claims"].append(content["claims"][0] | {"id": "other", "protocol": "best", "variant": "plain"})


CHANGES = [more_seeds, another_number, another_margin, another_protocol, one_more_claim, one_claim_less]


@pytest.mark.parametrize("change", CHANGES)
def test_terms_that_changed_after_a_run_are_found(toy, commit, ran_from, change):
    ran_from(commit())
    content = toy.paper_content()
    change(content)
    paper = toy.paper(content=content)
    (fault,) = frozen_faults(paper)
    assert fault.startswith("papers/alpha_2001/paper.yaml: plain: seed 0 ran at ")
    assert [state for state, *_ in _claims(paper, None)] == [WRONG]


@pytest.mark.parametrize("change", CHANGES)
def test_terms_changed_after_the_freeze_are_found_without_a_run(toy, commit, change):
    frozen = commit()
    content = toy.paper_content() | {"frozen": frozen}
    assert frozen_faults(toy.paper(content=content)) == []
    change(content)
    (fault,) = frozen_faults(toy.paper(content=content))
    assert fault == (
        f"papers/alpha_2001/paper.yaml: plain: frozen at {frozen[:7]}, and seeds or claims were different then"
    )


def test_words_and_other_variants_may_change(toy, commit, ran_from):
    ran_from(commit())
    content = toy.paper_content()
    content["claims"][0]["where"] = "Table 2"
    content["variants"]["plain"]["description"] = "as it is printed"
    content["claims"][1] |= {"reported": "31.00"}
    assert frozen_faults(toy.paper(content=content)) == []


def test_terms_put_back_before_the_run_are_those_of_the_run(toy, commit, ran_from):
    content = toy.paper_content()
    another_number(content)
    commit(content)
    ran_from(commit())
    assert frozen_faults(toy.paper()) == []


def test_records_that_no_claim_is_judged_by_do_not_matter(toy, commit, ran_from):
    earlier = commit()
    ran_from(earlier, edition="resized")
    content = toy.paper_content()
    content["claims"] = content["claims"][:1]
    del content["variants"]["wide"]
    ran_from(commit(content), 1)
    assert frozen_faults(toy.paper(content=content | {"frozen": earlier})) == []
    more_seeds(content)
    assert len(frozen_faults(toy.paper(content=content))) == 1


@pytest.mark.parametrize("kind", ["frozen", "ran"])
def test_a_commit_that_the_history_does_not_have_is_found(toy, commit, ran_from, kind):
    there, invented = commit(), "ab" * 20
    ran_from(invented if kind == "ran" else there)
    paper = toy.paper(content=toy.paper_content() | {"frozen": invented if kind == "frozen" else there})
    (fault,) = frozen_faults(paper)
    assert f"{kind} at abababa, and the history has no such file there" in fault


def test_where_everything_stood_before_verify_says_so(toy, commit, ran_from):
    frozen = commit()
    ran_from(frozen)
    paper = toy.paper(content=toy.paper_content() | {"frozen": frozen})
    found = "none of 1 records ran under seeds, printed numbers or margins other than today's"
    assert _claims(paper, None) == [(PASSED, "alpha_2001: claims", f"{found}, which are those of {frozen[:7]}")]
    assert _claims(toy.paper(), None) == [(PASSED, "alpha_2001: claims", found)]


def test_without_a_history_nothing_is_asked(toy, ran_from):
    ran_from("ab" * 20)
    ((state, _, why),) = _claims(toy.paper(), None)
    assert state == SKIPPED and "no git history here" in why


def test_the_history_of_another_repository_around_is_not_asked(toy, git, monkeypatch):
    inside = toy.root / "unpacked"
    inside.mkdir()
    paper = toy.paper()
    monkeypatch.setattr(paths, "ROOT", inside)
    with pytest.raises(NoHistory):
        frozen_faults(paper)


def test_a_history_that_does_not_reach_back_is_said_to(toy, git, commit, ran_from, tmp_path, monkeypatch):
    ran_from(commit())
    commit()
    subprocess.run(["git", "clone", "-q", "--depth", "1", toy.root.as_uri(), tmp_path / "shallow"], check=True)
    paper = toy.paper()
    monkeypatch.setattr(paths, "ROOT", tmp_path / "shallow")
    paper.file = paths.ROOT / "papers" / "alpha_2001" / "paper.yaml"
    with pytest.raises(NoHistory, match="does not reach back"):
        frozen_faults(paper)


@pytest.mark.parametrize("change", [another_number, another_margin, another_protocol, one_claim_less])
def test_claims_that_changed_after_released_weights_were_measured_are_found(toy, commit, released_record, change):
    content = toy.released_content()
    measured_at = commit(content)
    toy.publish(released_record(code={"commit": measured_at, "committed": True, "sources": "34" * 32}))
    assert frozen_faults(toy.paper(content=content)) == []
    change(content)
    (fault,) = frozen_faults(toy.paper(content=content))
    said = f"plain: theirs was measured at {measured_at[:7]}, and claims were different then"
    assert fault == f"papers/alpha_2001/paper.yaml: {said}"


@pytest.mark.parametrize("change", [more_seeds, one_more_claim])
def test_after_released_weights_were_measured_seeds_and_claims_may_be_added(toy, commit, released_record, change):
    content = toy.released_content()
    measured_at = commit(content)
    toy.publish(released_record(code={"commit": measured_at, "committed": True, "sources": "34" * 32}))
    change(content)
    assert frozen_faults(toy.paper(content=content)) == []


def test_a_commit_beside_the_history_is_not_in_it(toy, git, commit):
    commit()
    beside = git("commit-tree", "HEAD^{tree}", "-m", "beside")
    (fault,) = frozen_faults(toy.paper(content=toy.paper_content() | {"frozen": beside}))
    assert f"frozen at {beside[:7]}, and the history has no such file there" in fault


@pytest.mark.parametrize("text", ["", "words", "claims: {", "claims: []", "claims: [x]\nvariants: {}"])
def test_what_is_no_paper_has_no_terms(text):
    assert terms_of(text) == {}


def test_a_file_from_before_seeds_were_fixed_has_three():
    assert terms_of("variants: {plain: {dataset: shapes}}\nclaims: []") == {"plain": (3, [])}
