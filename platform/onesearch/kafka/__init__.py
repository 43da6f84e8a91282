"""Kafka behind a contract of a few methods: two clients that keep it, and a broker for this machine."""
