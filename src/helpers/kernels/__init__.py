"""The hot loops of the exact denoisers: each one function, with a fast path for the machine it
finds."""
