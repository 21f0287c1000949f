"""Bytes to pixels and back: decode_image, preprocess, encode_image. Pure functions."""
