"""How commands talk and write: help, messages, errors, files that appear whole."""
