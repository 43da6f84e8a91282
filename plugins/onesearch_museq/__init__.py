"""Mu-Seq: shoppers seen through their behaviour (the user encoder in the box)."""
