"""Bastek et al. 2025, physics-informed diffusion models: *Diffusion that obeys physics* (chapter
20)."""
