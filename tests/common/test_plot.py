"""The curves of runs beside those of the published seeds."""

import pytest
from matplotlib import pyplot as plt

from common.base.errors import UsageError
from common.cli import plot


@pytest.fixture
def begun(tmp_path):
    """Makes the folder of a seed that has logged so far."""

    def begun(variant="plain", how="quick-official", seed=0, curves="loss,error\n2,50\n1,25\n"):
        folder = tmp_path / "runs" / "alpha_2001" / variant / how / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "curves.csv").write_text(curves)
        return folder

    return begun


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The panels that are drawn: by title, each line's label and values."""

    def drawn(*runs) -> dict:
        figures = []
        honest = plot._draw
        monkeypatch.setattr(plot, "_draw", lambda *of: figures.append(honest(*of)) or figures[-1])
        plot.plot_runs(list(runs), tmp_path / "curves.png")
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        (figure,) = figures
        plt.close(figure)
        return {
            axes.get_title(): [(line.get_label(), list(line.get_ydata())) for line in axes.lines]
            for axes in figure.axes
        }

    return drawn


def test_a_run_is_drawn_beside_the_published_seeds_of_its_variant(toy, record, begun, drawn):
    toy.paper()
    toy.publish(record(0, curves={"loss": [3.0, 2.0]}), record(1, curves={"loss": [4.0, 1.0]}))
    toy.publish(record(0, variant="wide", curves={"loss": [9.0]}), record(0, edition="resized"))
    published = "published: plain, official"
    assert drawn(begun()) == {
        "loss": [(published, [3, 2]), (published, [4, 1]), ("plain / quick-official / seed-0", [2, 1])],
        "error": [(published, []), (published, []), ("plain / quick-official / seed-0", [50, 25])],
    }


def test_a_folder_stands_for_all_the_runs_in_it(toy, record, begun, drawn, tmp_path):
    toy.paper()
    toy.publish(record(0, edition="resized", curves={"loss": [7.0]}))
    begun(how="full-official-modified-abcdabcd", seed=3), begun("wide", curves="loss\n5\n")
    assert [label for label, _ in drawn(tmp_path / "runs")["loss"]] == [
        "published: plain, resized",  # there are no others
        "plain / full-official-modified-abcdabcd / seed-3",
        "wide / quick-official / seed-0",
    ]


@pytest.mark.parametrize("content", ["", "loss\nmuch\n", "loss,error\n1\n"])
def test_what_holds_no_curves_is_refused(toy, begun, tmp_path, content):
    with pytest.raises(UsageError, match="runs holds no curves: name a folder of runs/"):
        plot.plot_runs([tmp_path / "runs"], tmp_path / "curves.png")
    with pytest.raises(UsageError, match="is not a file of curves"):
        plot.plot_runs([begun(curves=content)], tmp_path / "curves.png")
    with pytest.raises(UsageError, match="a figure is written as .png, .pdf or .svg"):
        plot.plot_runs([tmp_path / "runs"], tmp_path / "curves.doc")
