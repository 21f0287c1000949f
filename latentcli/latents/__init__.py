"""Names, packs and measures latents, by pure functions on tensors."""
