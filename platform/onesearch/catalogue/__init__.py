"""The catalogue while it is served: changes as they come, and the generations that they lead to."""
