"""What all tests share: those marked `tensorflow` are skipped, with the reason, where TensorFlow is not installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from snippets import ROOT

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("tensorflow") is not None:
        return
    skip = pytest.mark.skip(reason="TensorFlow is not installed: pip install '.[tensorflow-cpu]'")
    for item in items:
        if item.get_closest_marker("tensorflow") is not None:
            item.add_marker(skip)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the models in it, to be written to: where the documentation's code and commands run."""
    (tmp_path / "legacy_models").symlink_to(ROOT / "legacy_models")
    return tmp_path
