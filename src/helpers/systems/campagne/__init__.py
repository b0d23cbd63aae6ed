"""Campagne, from classical denoising to networks: *From Fourier to UNets* (chapter 9)."""
