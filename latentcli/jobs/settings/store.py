"""Holds the argument that names a store, which several jobs share.

Importing this loads no torch.
"""

from __future__ import annotations

from latentcli.core.options import option
from latentcli.jobs.runtime.given_names import check_store

NO_STORE = "Give the store: the folder that latentcli encode wrote."


def store_argument(help: str, section: str = "read") -> str:
    """The store that a command works on, typed without a flag."""
    return option(
        "",
        help,
        argument=True,
        section=section,
        panel="read",
        needed=NO_STORE,
        exists=check_store,
    )
