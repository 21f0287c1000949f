"""Writes, reads, locks and verifies stores: manifest, input list, commit records, shards."""
