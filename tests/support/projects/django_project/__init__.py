"""A minimal Django project; Celery's guide imports the application here."""

from .celery import app as celery_app

__all__ = ["celery_app"]
