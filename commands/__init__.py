"""The commands, one file for related ones: each parses its options, calls a function and prints."""
