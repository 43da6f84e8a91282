"""Reads Kafka: into the log, the shoppers' states and the catalogue, each event once."""
