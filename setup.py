"""How txpaxos is packaged. Everything that is not packaging (tools, tests) is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

KEYS = ["cryptography>=43", "pyopenssl>=24.3", "service-identity>=24.1"]
TRACING = ["opentelemetry-api>=1.30", "opentelemetry-sdk>=1.30"]
TEST = [
    *KEYS,
    *TRACING,
    *("starlette>=0.45", "uvicorn>=0.32"),  # for an example
    "pytest>=8.4.1",
    "pytest-twisted>=1.14.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "pytest-cov>=6.0",
    "hypothesis>=6.100",
    "coverage>=7.6",
    "pyyaml>=6.0",  # what containers are composed by
    *("playwright>=1.50", "axe-core-python>=0.1"),  # for the page of `txpaxos play`, if there is a browser
    "setuptools>=70.1",  # the packaging tests build without a network
]
BENCH = ["pysyncobj>=0.3.17", "matplotlib>=3.8", "grpcio>=1.60", "kazoo>=2.10"]
DOCS = [*KEYS, *TRACING, "sphinx>=9.0", "furo>=2025.12.19"]
LINT = ["ruff>=0.15", "mypy>=1.15", "mypy-zope>=1.0.9"]
RELEASE = ["build>=1.2", "twine>=6.0", "setuptools>=70.1"]

ROOT = Path(__file__).parent
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "txpaxos" / "__init__.py").read_text(encoding="utf-8"), re.M)

setup(
    name="txpaxos",
    version=VERSION,
    description="Replicated services on Twisted: Multi-Paxos that keeps its promises.",
    long_description=(ROOT / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="The txpaxos developers",
    license="MIT",
    keywords=["paxos", "consensus", "replication", "state machine", "twisted", "distributed"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    # Do not remove: it keeps `pip install -e .` a plain path entry, and only so does twistd find the plugin.
    package_dir={"": "."},
    # No __init__.py may stand under twisted/: it would replace Twisted's own, and uninstalling would delete it.
    packages=[*find_packages(include=["txpaxos", "txpaxos.*"]), "twisted.plugins"],
    package_data={"txpaxos": ["py.typed", "aio/*.pyi", "play/page/*", "status_port/page/*"]},
    entry_points={"console_scripts": ["txpaxos = txpaxos.__main__:main"]},
    python_requires=">=3.11",
    install_requires=["twisted>=24.10", "attrs>=22.2", "msgspec>=0.18.6", "click>=8.1", "prometheus-client>=0.20"],
    extras_require={
        "keys": KEYS,
        "tracing": TRACING,
        "test": TEST,
        "lint": LINT,
        "bench": BENCH,
        "docs": DOCS,
        "release": RELEASE,
        "dev": TEST + LINT + DOCS,
    },
    zip_safe=False,
)
