"""What edge tests share."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry

from edge.counts import EdgeCounts


def _support(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "support" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tests_support_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def video() -> ModuleType:
    """tests/support/video.py: pictures through real encoders."""
    return _support("video")


@pytest.fixture(scope="session")
def peers() -> ModuleType:
    """tests/support/peers.py: a hub that is a real ROUTER, and a slow link to it."""
    return _support("peers")


@pytest.fixture(scope="session")
def rtsp() -> ModuleType:
    """tests/support/rtsp.py: a real RTSP server, independent readers, and a camera that pushes."""
    return _support("rtsp")


@pytest.fixture
def counts() -> EdgeCounts:
    return EdgeCounts(CollectorRegistry())
