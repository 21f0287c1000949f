"""Encodes images, clips and tars into a latent store or a tar stream."""
