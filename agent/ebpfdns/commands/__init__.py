"""One module for each sub-command, imported only when it is called; `cli.py` has the table."""
