"""The benchmarks run, and count as they say. How fast anything is depends on the machine and is not tested."""

import time

import pytest

from common.base.errors import UsageError
from common.claims.papers import find_papers
from common.publishing import bench
from common.publishing.bench import Job, _jobs, _time
from tests.contract.helpers import PAPER
from tests.papers.variants import the_others_slow

PAPERS = find_papers()


@pytest.mark.parametrize("paper", the_others_slow(PAPERS, PAPER))
def test_both_ways_of_every_job_work(paper):
    jobs = _jobs(paper)
    assert jobs, f"{paper} has no bench.py, or no jobs in it"
    for job in jobs:
        assert job.ours() > 0 and job.straightforward() > 0
        assert job.flops_per_sample > 0 and job.samples > 0


def test_a_ratio_is_of_medians_by_the_sample(monkeypatch):
    """Our way takes 2 ms a sample and once very long, the other 6 ms; the first round does not count."""
    monkeypatch.setattr(bench, "matrix_rate", lambda precision, device: 1e6)
    pauses = iter([0.3, 0.004, 0.3, 0.004, 0.004, 0.004, 0.004, 0.004])

    def ours() -> int:
        time.sleep(next(pauses))
        return 2

    def straightforward() -> int:
        time.sleep(0.006)
        return 1

    result = _time("paper", Job("job", ours, straightforward, 100.0, 1, "all", 1000))
    assert 2 < result.ratio < 4
    assert 300 < result.samples_per_s <= 500
    assert result.share == pytest.approx(result.samples_per_s * 100 / 1e6)
    assert result.whole_s == pytest.approx(1000 / result.samples_per_s)


def test_a_paper_without_jobs_is_told():
    with pytest.raises(UsageError, match="nothing: no bench.py, so there is nothing to time."):
        bench.run_benchmarks(["nothing"], as_json=False)
