"""Kamb & Ganguli 2025, local score machines and how they agree with networks (chapter 12)."""
