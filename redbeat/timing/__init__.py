"""Pure: time zones, wall times, the rules of calendars and their text, next due times."""
