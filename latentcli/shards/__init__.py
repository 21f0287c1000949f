"""The only package that opens data files: planning, reading, writing, the manifest."""
