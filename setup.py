"""Metadata, dependencies, extras and console scripts; what concerns tools only is in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """`__version__`, read as text: importing the package would need its dependencies."""
    text = (HERE / "graph_restore" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise SystemExit('graph_restore/__init__.py has no line __version__ = "..."')
    return found[1]


CORE = ["numpy>=1.23", "protobuf>=4.25", "google-crc32c>=1.5", "ml_dtypes>=0.4", "click>=8.1", "rich>=13"]
TEST = ["pytest>=8", "pytest-xdist>=3", "hypothesis>=6", "grpcio-tools>=1.62"]

setup(
    name="graph-restore",
    version=version(),
    description="Brings TensorFlow 1 graphs and checkpoints back: reads, restores and freezes them without TensorFlow",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="tensorflow checkpoint graphdef metagraph savedmodel freeze_graph restore",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["graph_restore", "graph_restore.*"]),
    package_data={"graph_restore": ["*.binpb", "py.typed"]},
    python_requires=">=3.10",
    install_requires=CORE,
    extras_require={
        "tensorflow": ["tensorflow>=2.16", "tensorboard"],
        "tensorflow-cpu": ["tensorflow-cpu>=2.16", "tensorboard"],
        "test": TEST,
        "dev": [*TEST, "ruff>=0.6", "mypy>=1.11", "types-protobuf", "pre-commit>=3"],
    },
    entry_points={
        "console_scripts": [
            "graph-restore = graph_restore.cli.main:main",
            "freeze_graph = graph_restore.freeze_graph:main",
        ]
    },
)
