"""The schedule in Redis: clients, retries, keys, records, scripts, listening."""
