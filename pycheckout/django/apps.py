"""The app: what Django calls, and when."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate, pre_migrate


class PycheckoutConfig(AppConfig):
    """The app `pycheckout`."""

    name = "pycheckout.django"
    label = "pycheckout"
    verbose_name = "Checkout"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from ._checks import look
        from ._database import deploy, install_without_migrations

        pre_migrate.connect(install_without_migrations, sender=self)
        post_migrate.connect(deploy, sender=self)
        checks.register(look, checks.Tags.database)
