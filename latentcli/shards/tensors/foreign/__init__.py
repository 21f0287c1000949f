"""Reads latents in files of other tools: one file for each tool's format, and a table of all."""
