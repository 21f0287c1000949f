"""Holds the types and errors that every package uses; it opens no file and builds no network."""
