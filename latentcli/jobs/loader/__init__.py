"""Turns sources into pixels: finds inputs, reads, decodes and resizes them, in order."""
