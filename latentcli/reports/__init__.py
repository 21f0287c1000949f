"""Builds tables, charts and pages for people from the --json documents."""
