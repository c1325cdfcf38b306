"""Which of several processes says what went wrong."""

import signal

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from common.base.errors import UserError
from common.training.processes import LostPeer, left_to_launcher

ERROR = UserError("--batch-size 0: Input should be greater than or equal to 1.")


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Be one of two processes, by rank; gives the file that their launcher reads what went wrong from."""

    def place(rank):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "REPRO_LAUNCHED": 1}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
        return tmp_path / "error.json"

    before = signal.getsignal(signal.SIGTERM)
    yield place
    signal.signal(signal.SIGTERM, before)


def test_what_the_second_process_met_reaches_the_launcher_in_its_words(place):
    file = place(1)
    assert left_to_launcher(ERROR)
    assert ProcessFailure(local_rank=1, pid=1, exitcode=2, error_file=str(file)).message == str(ERROR)


def test_the_first_process_is_not_ended_while_it_says_what_went_wrong(place):
    file = place(0)
    assert not left_to_launcher(ERROR)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert not file.exists()


def test_a_process_that_lost_its_peer_leaves_it_to_the_launcher(place):
    place(0)
    assert left_to_launcher(LostPeer("gone"))
