"""Schemas, the store, importers, the demo store and its simulated shoppers."""
