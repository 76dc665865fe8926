"""Schedulers and entries as users of celery-redbeat 2.x have subclassed them.

A test copies the package into its project, where beats of 2.x and of this package run it unchanged.
It imports from `redbeat` only what 2.x has there, too.
"""
