"""Opens, inspects and verifies stores, for people and for training."""
