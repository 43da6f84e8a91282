"""Events: what shoppers were shown and did, what changed in the catalogue, and how Kafka is told."""
