"""Keeps a store whole: manifest, input list, commit records, locks, verification."""
