"""Pure: time zones, wall clocks, calendar rules and their text, next due times."""
