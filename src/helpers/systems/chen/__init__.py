"""Chen et al. 2024, image neural field diffusion: *Images as fields* (chapter 22)."""
