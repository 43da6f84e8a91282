"""Shoppers: what is kept of each, where it is kept, and what was known of them at any moment of a log."""
