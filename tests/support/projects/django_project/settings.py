"""The settings of a minimal Django project, whose Celery settings begin with `CELERY_`."""

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["django.contrib.contenttypes"]
USE_TZ = True

CELERY_RESULT_EXPIRES = None
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {"hello": {"task": "django_project.celery.hello", "schedule": 1}}
CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://broker.invalid:6379/1")
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3}
CELERY_REDBEAT_KEY_PREFIX = "mine:"
CELERY_REDBEAT_LOCK_KEY = "leader"
CELERY_REDBEAT_LOCK_TIMEOUT = 70
CELERY_REDBEAT_KEY_EXPIRY_CHECK = "loud"
CELERY_REDBEAT_CLAIM_TIMEOUT = 20
