"""For people: the command line, its arguments and tables, backup."""
