"""An application factory of Flask, as Flask's own guide to Celery writes it."""

from typing import Any

from celery import Celery
from flask import Flask


def create_app(celery_settings: dict[str, Any]) -> Flask:
    """A Flask application with these settings of Celery, and its Celery application in it."""
    app = Flask("flask_factory")
    app.config.from_mapping(CELERY=celery_settings)
    celery_init_app(app)
    return app


def celery_init_app(app: Flask) -> Celery:
    """Give a Flask application a Celery application."""
    celery_app = Celery(app.name, set_as_current=False)
    celery_app.config_from_object(app.config["CELERY"])
    app.extensions["celery"] = celery_app
    return celery_app
