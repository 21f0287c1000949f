"""Reads and writes safetensors files, in memory, in pieces, or inside a tar."""
