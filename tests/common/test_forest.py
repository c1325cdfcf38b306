"""The forest plot shows what the rows say."""

import matplotlib.pyplot as plt
import pytest

from common.base import paths
from common.claims import verdict as v
from common.claims.comparison import Comparison
from common.claims.rows import paper_rows
from common.pages import figures
from common.pages.forest import FARTHEST, MEAN_WIDTH, RUN_WIDTH, STYLES, forest


@pytest.fixture
def drawn(toy):
    """The axes of the forest plot of some records of the toy paper."""

    def drawn(records, content=None) -> plt.Axes:
        paper = toy.paper(content=content)
        (axes,) = forest([Comparison(paper, paper_rows(paper, records), records)]).axes
        return axes

    yield drawn
    plt.close("all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def bars(axes, width: float) -> list[list[float]]:
    """The ends of the bars of this width that have a length."""
    ends = [
        list(line.get_xdata()) for line in axes.lines if line.get_linewidth() == width and len(line.get_xdata()) == 2
    ]
    return [[float(low), float(high)] for low, high in ends if low != high]


def test_a_claim_is_drawn_in_units_of_its_margin(drawn, record):
    values = 0.9, 0.95, 1.03
    axes = drawn([record(k, value) for k, value in enumerate(values)])
    summary = v.summarise(list(values), 0.01)
    of_mean = [(end - 0.95) / 0.19 for end in (summary.spread.low, summary.spread.high)]
    of_next = [(end - 0.95) / 0.19 for end in (summary.spread.next_low, summary.spread.next_high)]
    assert bars(axes, MEAN_WIDTH) == [pytest.approx(of_mean)] and bars(axes, RUN_WIDTH) == [pytest.approx(of_next)]
    means = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == STYLES[v.REPRODUCED][1]]
    assert means[0] == pytest.approx((summary.mean - 0.95) / 0.19)
    assert {"plain, test error", "0.95 ± 0.19 %", "0.96 ± 0.07 % (n = 3)", "reproduced"} <= set(texts(axes))
    assert axes.get_title("left") == "1 printed number measured on the paper's data: 1 reproduced"


def test_what_lies_beyond_the_plot_ends_in_an_arrow(drawn, record):
    far = drawn([record(k, 5.0 + k / 100) for k in range(3)])
    arrows = [line for line in far.lines if line.get_marker() == ">" and line.get_xdata()[0] == FARTHEST]
    assert arrows and "not reproduced" in texts(far) and bars(far, MEAN_WIDTH) == []
    near = drawn([record(k, 0.95 + k / 100) for k in range(3)])
    assert not [line for line in near.lines if line.get_marker() in ("<", ">")]


def test_too_few_seeds_have_a_mean_and_no_interval(drawn, record):
    axes = drawn([record(k, 0.9 + k / 10) for k in range(2)])
    assert bars(axes, MEAN_WIDTH) == bars(axes, RUN_WIDTH) == []
    assert "too few seeds" in texts(axes)


def test_other_data_details_and_what_was_not_measured_are_not_drawn(toy, drawn, record, failed_record):
    other = [record(k, edition="resized") for k in range(3)]
    content = toy.paper_content()
    content["claims"][1]["detail"] = True
    detail = [record(k, 30.0, "psnr", variant="wide") for k in range(3)]
    for records in ([], other, detail, [failed_record(k) for k in range(3)]):
        paper = toy.paper(content=content)
        assert forest([Comparison(paper, paper_rows(paper, records), records)]) is None
    axes = drawn([*other, *detail, *(record(k) for k in range(3))], content)
    assert texts(axes).count("plain, test error") == 1 and not any("wide" in text for text in texts(axes))


def test_rows_that_differ_in_the_protocol_alone_name_it(toy, drawn, record):
    content = toy.paper_content()
    content["claims"].append(content["claims"][0] | {"id": "best", "protocol": "best"})
    both = {"last": {"test_error": 0.9}, "best": {"test_error": 0.8}}
    axes = drawn([record(k, metrics=both) for k in range(3)], content)
    assert {"plain, test error, last", "plain, test error, best"} <= set(texts(axes))


def test_every_verdict_on_a_mean_has_its_own_colour_or_side_and_shape():
    without = {v.FAILED, v.NOT_ATTEMPTED, v.OTHER_DATA, v.NO_PUBLISHED_NUMBER}
    assert STYLES.keys() == set(v.WORDS) - without
    colors, shapes = zip(*STYLES.values(), strict=True)
    assert len(set(shapes)) == len(STYLES) and len(set(colors)) == len(STYLES) - 1  # lower and higher share theirs


def test_the_forest_is_drawn_with_the_figures_and_the_same_again(toy, record):
    toy.paper()
    assert figures.draw_all() == []
    toy.publish(*(record(k, 0.9 + k / 20) for k in range(3)))
    path = paths.FIGURES / figures.FOREST
    assert figures.draw_all() == [path]
    first = path.read_bytes()
    figures.draw_all()
    assert path.read_bytes() == first
