"""Permenter & Yuan 2024, denoising as projection: *Denoising is projection* (chapter 8)."""
