"""Denoisers whose weights are trained, a file for each class of `Network`; what lies here is found
by `helpers.denoisers.known`."""
