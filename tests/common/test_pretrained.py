"""What is said where there are no weights to load; that they work is tested in tests/contract/test_hub.py."""

import pytest

from common.base.errors import UsageError
from common.publishing.pretrained import description, load_pretrained, loadable

TRAIN = "To train them: bash reproduce.sh alpha_2001 --variant"


def refused(*words) -> str:
    with pytest.raises(UsageError) as told:
        load_pretrained(*words)
    return str(told.value)


def test_weights_that_do_not_exist_are_not_loaded(toy, record):
    toy.paper()
    assert refused("alpha_2001") == (
        f"There are no weights of alpha_2001 / plain: it has not been measured here. {TRAIN} plain"
    )
    toy.publish(record())  # without its weights
    why = "only files of up to 4 MB are published"
    assert refused("alpha_2001", "plain") == f"There are no weights of alpha_2001 / plain: {why}. {TRAIN} plain"
    assert "Did you mean plain?" in refused("alpha_2001", "plane")
    assert "Did you mean alpha_2001?" in refused("alpha_2000")


def test_what_can_be_loaded_is_named_instead(toy, record):
    paper = toy.paper(content=toy.released_content())
    assert loadable(paper) == ["plain"]
    assert "measured here. Published or released: plain. To train" in refused("alpha_2001", "wide")
    toy.publish(record(variant="wide", weights={"sha256": "56" * 32, "file": "results/weights/wide"}))
    assert loadable(paper) == ["plain", "wide"]


def test_of_large_weights_it_is_said_which_are_published(toy, record):
    toy.paper(content=toy.paper_content() | {"weights_of": "wide"})
    toy.publish(record(), record(variant="wide"))
    assert "only files of up to 4 MB are published and, rounded to float16, the larger one of wide. To" in refused(
        "alpha_2001"
    )
    assert "wide: they are not published yet. To train" in refused("alpha_2001", "wide")


def test_what_is_loaded_says_that_it_was_rounded(toy, record, rounded_record):
    paper = toy.paper()
    toy.publish(rounded_record, record(variant="wide", weights={"sha256": "56" * 32, "file": "results/weights/wide"}))
    about, rounded = description(paper, "plain").split(". ", 1)
    assert about == "alpha_2001 / plain: as printed"
    assert rounded == (
        "results/weights/alpha_2001/plain.safetensors holds the weights of plain, seed 0, rounded to float16; its "
        f"sha256 is {'78' * 32}. It measures test error 0.97 % (last); before rounding, test error 0.95 % (last)."
    )
    assert description(paper, "wide") == "alpha_2001 / wide: twice as wide."
