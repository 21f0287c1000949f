"""The jobs: the only place where images, models, latents and shards meet."""
