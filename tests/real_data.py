"""The real data, for tests that want it: they skip, and say what is missing, where $REPRO_DATA has it not."""

import os

import pytest

from common.base.errors import DataAbsent
from common.data.passports import LocatedData, Passport, locate


def real_data(passport: Passport) -> LocatedData:
    """What $REPRO_DATA has of this; nothing is fetched for a test."""
    if not os.environ.get("REPRO_DATA"):
        pytest.skip(f"needs real data: set REPRO_DATA to a folder that has {passport.folder}/")
    try:
        return locate(passport)
    except DataAbsent as absent:
        pytest.skip(f"needs real data: {absent}")
