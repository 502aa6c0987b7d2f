"""The rules that `check_source` and `check_sink` check."""
