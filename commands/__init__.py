"""The commands, a file for each room: parse, call, print. ``cli.py`` lists them; no work is done here."""
