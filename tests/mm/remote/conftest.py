from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_server import Serve, servers


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers that answer from a script."""
    with servers(tmp_path) as start:
        yield start
