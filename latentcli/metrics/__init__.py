"""Compares pictures, clips and latents with one another, in figures."""
