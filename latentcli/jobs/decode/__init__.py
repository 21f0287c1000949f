"""Decodes latents into pictures and clips."""
