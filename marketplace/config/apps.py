from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "marketplace.config"
    label = "config"

    def ready(self) -> None:
        # The table needs every app's tasks, so it is read when all apps are loaded.
        from marketplace import flow  # noqa: PLC0415

        flow.connect()
