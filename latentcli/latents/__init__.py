"""What a latent is called in a shard and how it gets in and out: pure functions on tensors."""
