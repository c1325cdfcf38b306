"""A repository with nothing but the toy paper in it, for tests that leave it as it was."""

import pytest

from tests.contract.helpers import make_toy_repository


@pytest.fixture(scope="session")
def toy_repository(tmp_path_factory):
    return make_toy_repository(tmp_path_factory.mktemp("toy") / "repository")
