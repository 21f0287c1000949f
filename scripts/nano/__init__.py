"""Training of fcdm_nano: crops, fast network, starting point, optimiser. See docs/fcdm_nano.md."""
