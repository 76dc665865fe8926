"""What the tests lean on: servers, a wire to look at, Celery's programs."""
