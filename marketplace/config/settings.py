"""Django settings, derived from the typed environment in env.py. One reason above each value that is not obvious."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from marketplace.config.env import ROOT, Settings

HYPERGPU = Settings()
HYPERGPU.state_dir.mkdir(parents=True, exist_ok=True)

BASE_DIR = ROOT
DEBUG = HYPERGPU.debug


def kept_secret(path: Path) -> str:
    """A secret that survives restarts, for installations that set none."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(48))
    return path.read_text()


SECRET_KEY = HYPERGPU.secret_key.get_secret_value() or kept_secret(HYPERGPU.state_dir / "secret.key")
ALLOWED_HOSTS = HYPERGPU.hosts
CSRF_TRUSTED_ORIGINS = [HYPERGPU.public_url]
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = True
# Cookies travel over TLS only, wherever the page is served by TLS.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HYPERGPU.public_url.startswith("https://")

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "marketplace.events",
    "marketplace.artifacts",
    "marketplace.chain",
    "marketplace.accounts",
    "marketplace.operators",
    "marketplace.jobs",
    "marketplace.training",
    "marketplace.settlement",
    "marketplace.config.apps.ConfigConfig",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "marketplace.config.urls"
ASGI_APPLICATION = "marketplace.config.asgi.application"
AUTH_USER_MODEL = "accounts.Account"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"


def database(url: str) -> dict[str, object]:
    """PostgreSQL from a URL; SQLite in the state folder without one."""
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": HYPERGPU.state_dir / "hypergpu.sqlite3",
            "OPTIONS": {
                # Several processes write: take the write lock at BEGIN, so that a reader never fails on upgrade.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
            },
            # A file, not memory: tests run several threads against it.
            "TEST": {"NAME": HYPERGPU.state_dir / "test.sqlite3"},
        }
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        # As libpq reads it: ?host=/folder names a Unix socket.
        "HOST": parts.hostname or parse_qs(parts.query).get("host", [""])[0],
        "PORT": parts.port or "",
        # A dead server must not hold a request or a task for ever.
        "OPTIONS": {"connect_timeout": 5},
        "CONN_HEALTH_CHECKS": True,
    }


DATABASES = {"default": database(HYPERGPU.database_url)}

CHANNEL_LAYERS = {"default": {"BACKEND": "marketplace.common.groups.ChannelLayer", "CONFIG": {"url": HYPERGPU.redis_url}}}

STATIC_URL = "/static/"
STATIC_ROOT = HYPERGPU.state_dir / "static"
STATIC_ROOT.mkdir(exist_ok=True)
STATICFILES_DIRS = [("app", ROOT / "frontend" / "dist")] if (ROOT / "frontend" / "dist").exists() else []
# Serves the built page without a collectstatic step; the browser caches hashed files for ever.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
PAGE = ROOT / "frontend" / "dist" / "index.html"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "marketplace.common.errors.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "HyperGPU",
    "VERSION": "1",
    "DESCRIPTION": "A marketplace for training neural networks on other people's GPUs, metered on a blockchain.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
}
# Django's own limit on bodies it reads into memory; config/body_limit.py stops larger ones before Django.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20

CELERY_BROKER_URL = HYPERGPU.redis_url
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Tasks are idempotent; what a dead worker held is re-driven from the database by the sweep.
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_DEFAULT_QUEUE = "control"
# What loads torch has queues, and so workers, of its own; each attestor has one too (flow.Ask).
CELERY_TASK_ROUTES = {
    "marketplace.training.tasks.start_job": {"queue": "compute"},
    "marketplace.training.tasks.check_contribution": {"queue": "compute"},
    "marketplace.training.tasks.aggregate_round": {"queue": "compute"},
    "marketplace.training.tasks.size_job": {"queue": "evaluation"},
    "marketplace.training.tasks.evaluate_round": {"queue": "evaluation"},
    "marketplace.training.tasks.replay_audit": {"queue": "audit"},
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 30, "socket_connect_timeout": 3, "socket_keepalive": True}
# A page must not wait for a dead broker: the event row stays and the sweep dispatches it later.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {"httpx": {"level": "WARNING"}, "web3": {"level": "WARNING"}, "uvicorn.access": {"level": "WARNING"}},
}
