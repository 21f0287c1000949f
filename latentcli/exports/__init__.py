"""Turns the latents of a store into the files that trainers read, one format a file."""
