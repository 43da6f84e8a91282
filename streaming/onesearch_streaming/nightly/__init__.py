"""The night: from the log's newest days to a challenger, through a gate, to a champion or to a refusal."""
