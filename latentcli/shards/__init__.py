"""Opens data files, as the only package that does: inputs, shards, tars and stores."""
