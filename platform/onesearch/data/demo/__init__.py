"""A simulated shop, whole from one seed: catalogue, shoppers, a year of logs. None of it is real."""
