"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(os.environ.get("EMBEDROUTER_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real long-format data sets; tests that need it skip where it is absent."""
    if not (SHARED_DATA / "zeroeval" / "questions.csv").is_file():
        pytest.skip(f"no real data sets at {SHARED_DATA}; set EMBEDROUTER_SHARED_DATA to try them")
    return SHARED_DATA
