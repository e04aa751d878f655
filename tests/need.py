"""What a test does when a server that it needs is not there."""

import os
from typing import NoReturn

import pytest

MISSING_SERVER = "needs a server: "


def need(what: str) -> NoReturn:
    """Skip this test because *what* is missing; with ``CI=true`` fail it, so that nothing goes untested there."""
    message = f"{MISSING_SERVER}{what}"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{message} (with CI=true this is a failure)", pytrace=False)
    pytest.skip(message)
