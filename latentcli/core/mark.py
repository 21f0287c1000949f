"""Holds the words by which files that this program writes can be told from all others."""

from __future__ import annotations

MADE_BY = "made by latentcli"
"""Stands in the first or the last bytes of every picture and video that is written."""
