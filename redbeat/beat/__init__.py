"""What a running beat does: leading, claiming, dispatching, resting, reporting."""
