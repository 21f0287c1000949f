"""Reads and writes files, whole or not at all, on disks and in object storage."""
