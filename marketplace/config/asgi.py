"""HTTP and websocket entry point."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.config.settings")
django_application = get_asgi_application()

from marketplace.config.admission import admit  # noqa: E402  (models exist only after Django is set up)
from marketplace.config.body_limit import BodyLimit  # noqa: E402
from marketplace.events.consumers import EventConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": BodyLimit(django_application, admit=admit),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter([path("ws/v1/events", EventConsumer.as_asgi())]))),
    }
)
