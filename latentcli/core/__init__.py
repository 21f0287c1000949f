"""Words that every layer shares: types and errors. Opens no file, builds no network."""
