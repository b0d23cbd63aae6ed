"""Levine & Weiss 2026, the polynomial of their released code and its repair: *Closed-form denoisers
on faces* (chapter 11). What the paper says of linear, polynomial and bottleneck denoisers is the
library itself."""
