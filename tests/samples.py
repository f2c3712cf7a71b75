"""Where sample homes and cases are read: `APIARY_SAMPLES` and `APIARY_CASES`. Neither is part of this repository.

Does not belong here: what should come out of them (test_*.py).
"""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared"
SAMPLES = Path(os.environ.get("APIARY_SAMPLES", BESIDE / "samples"))
CASES = Path(os.environ.get("APIARY_CASES", BESIDE / "cases"))


def needs(*paths: Path) -> pytest.MarkDecorator:
    """Mark a test that reads these: where one is missing it is skipped, and pytest's summary says which."""
    missing = [path for path in paths if not path.exists()]
    return pytest.mark.skipif(
        bool(missing), reason=f"{next(iter(missing), None)} is missing: set APIARY_SAMPLES, APIARY_CASES"
    )
