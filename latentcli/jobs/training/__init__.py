"""Reads latent stores for training loops, at random or as a stream."""
