"""Bastek et al. 2025, physics-informed diffusion models: *Diffusion that obeys physics* and
*Structures that carry* (chapters 20 and 21)."""
