"""A simulated shop, whole from one seed: catalogue, shoppers with hidden tastes, a year of logs. None of it
is real.
"""
