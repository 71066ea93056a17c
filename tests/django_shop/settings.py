"""DATABASE is the URL of the shop's database, SCHEMA the schema of pycheckout, if it has one of its own."""

import os

from psycopg.conninfo import conninfo_to_dict

NAMES = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
PARTS = conninfo_to_dict(os.environ["DATABASE"])

SECRET_KEY = "of a test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["pycheckout.django", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        **{name: PARTS[part] for name, part in NAMES.items() if part in PARTS},
        "OPTIONS": {"assume_role": os.environ["ROLE"]} if "ROLE" in os.environ else {},
        "TEST": {"NAME": f"{PARTS['dbname']}_test"},
    },
    "archive": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
PYCHECKOUT_SCHEMA = os.environ.get("SCHEMA")
if "WITHOUT_MIGRATIONS" in os.environ:
    MIGRATION_MODULES = {"pycheckout": None, "shop": None}
