"""Releases: one immutable bundle of everything that serves, verified by its manifest."""
