"""pycheckout as a Django app. Needs Django 5.1 or newer (extra `django`), and psycopg 3.

    INSTALLED_APPS = [..., "pycheckout.django"]
    PYCHECKOUT_SCHEMA = "checkout"  # optional: a schema of its own; without it, the first one of the search_path

`manage.py migrate` installs it, and deploys each later release; `manage.py migrate pycheckout zero` takes it away,
unless rows would be lost. `manage.py check --database default` says what `pycheckout doctor` says.
`pycheckout.django.models` are models to read with, and `pycheckout.django.testing` empties the tables after a test.
"""

from importlib import import_module

from .._extras import needing

with needing("django"):
    import_module("django")
