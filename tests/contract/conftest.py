"""A repository with nothing but the toy paper in it, for tests that leave it as it was."""

import pytest

from tests.contract.helpers import ToySmoke, make_toy_repository


@pytest.fixture(scope="session")
def toy_repository(tmp_path_factory):
    return make_toy_repository(tmp_path_factory.mktemp("toy") / "repository")


@pytest.fixture
def toy(toy_repository, tmp_path):
    return ToySmoke(toy_repository, tmp_path / "runs", tmp_path / "log")
