"""Kafka in, log and shoppers' states out."""
