"""Checks models against published checkpoints and reference numbers. See docs/parity.md."""
