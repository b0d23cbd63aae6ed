"""A wing for each source that the book reproduces beside its core. The library knows none of them."""
