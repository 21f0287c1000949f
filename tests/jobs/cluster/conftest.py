"""The place where the processes of a job meet, for tests that are some of these themselves."""

from __future__ import annotations

import pytest


@pytest.fixture
def agent():
    """The variables of a launcher that serves the meeting place, in this process."""
    from torch.distributed import TCPStore

    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    yield {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(server.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "LATENTCLI_SILENCE_SECONDS": "3",
    }
