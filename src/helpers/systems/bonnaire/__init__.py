"""Bonnaire et al. 2025, when memorising begins: random features in training time (chapter 19)."""
