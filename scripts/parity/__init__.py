"""Checks models against published checkpoints and reference numbers.

See docs/internals/parity.md.
"""
