"""Kadkhodaie et al. 2024, geometry-adaptive harmonic bases (chapters 9, 16, 17 and 18)."""
