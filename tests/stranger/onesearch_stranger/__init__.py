"""A stranger's plugin: slogans as keywords, and a reward that likes low prices."""
