"""PARS: the preference-aware reward system (the reward in the box)."""
