"""Reads each format of picture files: one file here per format."""
