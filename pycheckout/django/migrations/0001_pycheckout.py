"""Installs pycheckout; backwards it is taken away, unless rows would be lost.

The one migration of the app: what a later release brings, the signal post_migrate deploys. The models are unmanaged and
change nothing in the database, so they are not written down here a second time.
"""

from typing import Any

from django.apps import apps
from django.db import migrations
from django.db.migrations.state import ModelState

from pycheckout.django._database import LABEL, install, uninstall


def forwards(historical: Any, schema_editor: Any) -> None:
    install(schema_editor.connection)


def backwards(historical: Any, schema_editor: Any) -> None:
    uninstall(schema_editor.connection)


def create(state: ModelState) -> migrations.CreateModel:
    return migrations.CreateModel(state.name, list(state.fields.items()), state.options, state.bases)


class Migration(migrations.Migration):
    atomic = False
    operations = (
        migrations.RunPython(forwards, backwards, atomic=False),
        *(create(ModelState.from_model(model)) for model in apps.get_app_config(LABEL).get_models()),
    )
