"""Turns bytes into pixels and back by pure functions: decode_image, preprocess, encode_image."""
