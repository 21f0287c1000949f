"""Training of fcdm_nano: crops, fast network, starting point, optimiser.

See docs/internals/fcdm_nano.md.
"""
