"""A wing for each source that the book reproduces beside its core: delete one, and the rest still runs."""
