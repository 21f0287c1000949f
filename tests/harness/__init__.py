"""Runs, feeds, measures and kills real jobs, for the tests and for the scripts of the checkout."""
