"""Every setting, from the environment. `.env.example` explains each one.

Order of precedence: the process's environment, then `.env`, then `$BANYAN_VAR/local.env`, which `manage.py up`
writes for the embedded servers so that every other command finds them. A secret `X` may also come as a file
named by `X_FILE` (Docker and Kubernetes secrets).
"""

import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import environ
from celery.schedules import crontab
from django.templatetags.static import static
from django.utils.translation import gettext_lazy as _

from saas.logging import configure_structlog, logging_config

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.FileAwareEnv()
environ.Env.read_env(BASE_DIR / ".env")
VAR_DIR = Path(env.str("BANYAN_VAR", default=str(BASE_DIR / "var"))).resolve()
environ.Env.read_env(VAR_DIR / "local.env")

DEBUG = env.bool("DEBUG", default=False)
INSECURE_SECRET_KEY = "insecure-only-for-tests-and-checks-never-for-people"  # noqa: S105  refused by saas.checks
SECRET_KEY = env.str("SECRET_KEY", default=INSECURE_SECRET_KEY)
# Keys from before: what they signed, and redeem codes made under them, stay good.
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# Fernet keys, comma-separated; the first encrypts, all decrypt (rotation: put the new one in front).
ENCRYPTION_KEYS: list[str] = env.list("ENCRYPTION_KEYS", default=[])

# Which hosts exist is the tenants' domain table, checked by tenants.middleware on every request.
ALLOWED_HOSTS = ["*"]
# The operator's own host names: /platform/ answers there and nowhere else.
PLATFORM_HOSTS: list[str] = env.list("PLATFORM_HOSTS", default=["localhost", "127.0.0.1"])
# Proxies whose X-Forwarded-Proto and X-Forwarded-For we believe are those that set both; off unless behind one.
BEHIND_PROXY = env.bool("BEHIND_PROXY", default=False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
HTTPS_ONLY = env.bool("HTTPS_ONLY", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS_ONLY
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=0)
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "saas",
    "unfold.apps.BasicAppConfig",
    "tenants.apps.OperatorAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "tenants",
    "billing",
    "chat",
    "lifecycle",
]

# daphne's runserver serves ASGI. Elsewhere its event loop is not wanted.
if sys.argv[1:2] == ["runserver"]:
    INSTALLED_APPS.insert(0, "daphne")

# The chat path does not pass through here (saas/asgi.py): this stack serves pages and JSON.
MIDDLEWARE = [
    "tenants.middleware.request_id",
    "tenants.middleware.api_edge",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "tenants.middleware.enter_tenant",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "saas.urls"
ASGI_APPLICATION = "saas.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# PostgreSQL only. The pool lives in each process; server-side cursors and prepared statements stay off so that
# PgBouncer's transaction mode may stand between.
DATABASE_URL = env.str("DATABASE_URL", default="postgres://banyan@127.0.0.1:5432/banyan")
DATABASES = {"default": environ.Env.db_url_config(DATABASE_URL)}
DATABASES["default"].update(
    ENGINE="saas.postgres",
    CONN_MAX_AGE=0,
    # saas.postgres replaces a connection that died in the pool, with its server or a firewall, before anyone gets it.
    CONN_HEALTH_CHECKS=False,
    ATOMIC_REQUESTS=False,
    DISABLE_SERVER_SIDE_CURSORS=True,
)
DATABASES["default"].setdefault("OPTIONS", {}).update(
    pool={
        "min_size": 0,
        "max_size": env.int("DATABASE_POOL", default=16),
        "timeout": env.float("DATABASE_TIMEOUT", default=10.0),
        "max_idle": 60,
        # The pool's waits double while the database is away; without a bound it would go on waiting when it is back.
        "reconnect_timeout": 1,
    },
    prepare_threshold=None,
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Threads that run the ORM for the chat path, in each web process.
ORM_THREADS = env.int("ORM_THREADS", default=8)

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    },
}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A broker that is away must cost a chat at most these seconds: the outbox sweep makes up for it.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 1,
    "socket_timeout": 1,
    "max_retries": 0,
    "visibility_timeout": 600,
}
CELERY_TASK_TIME_LIMIT = 600
# Every task here is idempotent: a second beat, or a late one, does no harm.
SWEEP_SECONDS = env.float("SWEEP_SECONDS", default=30.0)
CELERY_BEAT_SCHEDULE = {
    "record usage that the broker lost": {"task": "billing.tasks.sweep_unrecorded", "schedule": SWEEP_SECONDS},
    "end expired holds": {"task": "billing.tasks.expire_holds", "schedule": SWEEP_SECONDS},
    "close messages whose process died": {"task": "chat.tasks.close_orphans", "schedule": SWEEP_SECONDS},
    "index messages for the search": {"task": "chat.tasks.index_messages", "schedule": SWEEP_SECONDS},
    "forget attachments that were never sent": {"task": "chat.tasks.forget_unsent", "schedule": crontab(minute="35")},
    "erase deleted conversations": {"task": "chat.tasks.erase_deleted", "schedule": crontab(hour="4", minute="40")},
    "ask for payments that nobody told of": {"task": "billing.tasks.poll_orders", "schedule": 10.0},
    # Providers have yesterday's bill ready by ten; what one of them could not give comes with a later try.
    "fetch providers' bills": {"task": "billing.tasks.fetch_bills", "schedule": crontab(hour="2,11,16", minute="5")},
    "give and take back invitations' rewards": {"task": "billing.tasks.settle_rewards", "schedule": SWEEP_SECONDS},
    "forget where users came from": {
        "task": "billing.tasks.forget_rewards",
        "schedule": crontab(hour="4", minute="10"),
    },
    # Hourly, since a month ends at another hour in each tenant's zone; what is made already costs one query.
    "make monthly statements": {"task": "billing.tasks.make_statements", "schedule": crontab(minute="10")},
    "ask for refunds under way": {"task": "billing.tasks.poll_refunds", "schedule": SWEEP_SECONDS},
    "fold resellers' commission": {"task": "billing.tasks.fold_commissions", "schedule": crontab(hour="0", minute="5")},
    "free and take back commission": {"task": "billing.tasks.sweep_commissions", "schedule": SWEEP_SECONDS},
    "forget old codes": {"task": "tenants.tasks.forget_codes", "schedule": crontab(hour="4", minute="20")},
    "tell of low wallets": {"task": "billing.tasks.notify_low_wallets", "schedule": 300.0},
    "end trials and tell of their end": {"task": "lifecycle.tasks.sweep_trials", "schedule": crontab(minute="20")},
    "go on with imports whose worker died": {"task": "tenants.tasks.sweep_imports", "schedule": 60.0},
    "look for the proofs of domains": {"task": "lifecycle.tasks.prove_domains", "schedule": 300.0},
    "throw away old archives": {"task": "lifecycle.tasks.forget_exports", "schedule": crontab(hour="4", minute="20")},
    "delete tenants that are due": {"task": "lifecycle.tasks.sweep_deletions", "schedule": crontab(minute="50")},
    "audit the ledger": {"task": "billing.tasks.audit_ledger", "schedule": crontab(hour="3", minute="30")},
}

AUTH_USER_MODEL = "tenants.StaffUser"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "/platform/login/"
# A mailed link that sets a new password is good for so many seconds.
PASSWORD_RESET_TIMEOUT = 2 * 60 * 60

LANGUAGE_CODE = "zh-hans"
LANGUAGES = [("zh-hans", _("Simplified Chinese")), ("en", _("English"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = env.str("TIME_ZONE", default="Asia/Shanghai")
# Beat's times of day are the operator's.
CELERY_TIMEZONE = TIME_ZONE

STATIC_URL = "/static/"
STATIC_ROOT = env.str("STATIC_ROOT", default=str(VAR_DIR / "static"))
WHITENOISE_USE_FINDERS = True
# The client as `make client` builds it (docs/client.md). Names of its assets hold their digest: they never change.
CLIENT_DIR = Path(env.str("CLIENT_DIR", default=str(BASE_DIR / "client" / "dist" / "build" / "h5")))
STATICFILES_DIRS = [("client", str(CLIENT_DIR))] if CLIENT_DIR.is_dir() else []
WHITENOISE_IMMUTABLE_FILE_TEST = r"^.*/client/assets/[^/]+[-.][A-Za-z0-9_-]{8}\.[a-z0-9]+$"

# The admin's theme: nothing from foreign hosts, our own icon.
UNFOLD = {
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _request: static("banyan/icon.svg")}],
    "STYLES": [lambda _request: static("banyan/admin.css")],
    "SCRIPTS": [lambda _request: static("banyan/live.js")],
    "DASHBOARD_CALLBACK": "chat.admin_dashboard.show",
}

# People.
TOKEN_DAYS = env.int("TOKEN_DAYS", default=30)
# Tries to log in per account in a quarter of an hour (ten times that per address); new users per address and day.
LOGIN_TRIES = env.int("LOGIN_TRIES", default=20)
NEW_USERS_PER_DAY = env.int("NEW_USERS_PER_DAY", default=50)
# Tries of staff to log in, for each account in a quarter of an hour; ten times that per address.
STAFF_LOGIN_TRIES = env.int("STAFF_LOGIN_TRIES", default=10)
# Roles that must use a second factor wherever they work, beside what each tenant demands: of `owner`, `finance`,
# `support`, `content`, `reseller` for resellers' people and `operator` for the operator's.
TWO_FACTOR_ROLES: list[str] = env.list("TWO_FACTOR_ROLES", default=[])
# Tries to redeem a code, for each user in a quarter of an hour; ten times that per address.
REDEEM_TRIES = env.int("REDEEM_TRIES", default=20)
# One-time codes to phones and addresses: how long they live and how long one waits for the next, seconds; how many go
# to one of them in a day, are asked for from one network address in an hour, and a tenant sends in a day.
CODE_SECONDS = env.int("CODE_SECONDS", default=300)
CODE_RESEND_SECONDS = env.int("CODE_RESEND_SECONDS", default=60)
CODES_PER_TARGET = env.int("CODES_PER_TARGET", default=10)
CODES_PER_ADDRESS = env.int("CODES_PER_ADDRESS", default=30)
CODES_PER_TENANT = env.int("CODES_PER_TENANT", default=5000)
# How long after a log-in what is delicate needs no further proof, seconds.
FRESH_SECONDS = env.int("FRESH_SECONDS", default=600)
# A captcha, asked for after so many failures: "altcha" is work for the device and asks nobody; the others are of the
# "siteverify" kind (Turnstile, hCaptcha), off without an address, and their script and frames come from these hosts.
CAPTCHA_VERIFY_URL = env.str("CAPTCHA_VERIFY_URL", default="")
CAPTCHA_PROVIDER = env.str("CAPTCHA_PROVIDER", default="turnstile")
CAPTCHA_SITE_KEY = env.str("CAPTCHA_SITE_KEY", default="")
CAPTCHA_SECRET = env.str("CAPTCHA_SECRET", default="")
CAPTCHA_SCRIPT_URL = env.str("CAPTCHA_SCRIPT_URL", default="")
CAPTCHA_HOSTS = env.list("CAPTCHA_HOSTS", default=[])
CAPTCHA_AFTER = env.int("CAPTCHA_AFTER", default=3)
ALIYUN_SMS_URL = env.str("ALIYUN_SMS_URL", default="https://dysmsapi.aliyuncs.com")
# Where WeChat asks people whether they want to log in.
WECHAT_OPEN_URL = env.str("WECHAT_OPEN_URL", default="https://open.weixin.qq.com")
# Tenants' lives. New tenants are reached below this domain, and by this address where we visit them ourselves.
TENANT_DOMAIN = env.str("TENANT_DOMAIN", default="localhost")
TENANT_URL = env.str("TENANT_URL", default="https://{host}")
# Name servers that are asked for the proof of a domain, each an address, perhaps with a port; none: the machine's own.
# Checked here: a typing error stops the start.
DNS_RESOLVERS = [
    (str(ip_address(place.hostname or "")), place.port or 53)
    for place in (urlsplit(f"//{text}") for text in env.list("DNS_RESOLVERS", default=[]))
]
# For so many hours a domain that is to be proven is looked at by itself.
DOMAIN_CLAIM_HOURS = env.int("DOMAIN_CLAIM_HOURS", default=48)
TRIAL_DAYS = env.int("TRIAL_DAYS", default=14)
# Yuan that the platform puts into the wallet of a tenant on trial, and tenants on trial that a reseller has at most.
TRIAL_YUAN = env.int("TRIAL_YUAN", default=1)
TRIAL_TENANTS = env.int("TRIAL_TENANTS", default=20)
INVITATION_DAYS = env.int("INVITATION_DAYS", default=7)
# Where archives of tenants lie: a folder that the worker writes and every web process reads; and for how many days.
EXPORT_DIR = env.str("EXPORT_DIR", default=str(VAR_DIR / "exports"))
EXPORT_DAYS = env.int("EXPORT_DAYS", default=7)
# Days of grace before a tenant that is to be deleted is.
DELETION_DAYS = env.int("DELETION_DAYS", default=30)
# WeChat's API host; tests name their double here.
WECHAT_API_URL = env.str("WECHAT_API_URL", default="https://api.weixin.qq.com")
WECHAT_PAY_API_URL = env.str("WECHAT_PAY_API_URL", default="https://api.mch.weixin.qq.com")
ALIPAY_GATEWAY_URL = env.str("ALIPAY_GATEWAY_URL", default="https://openapi.alipay.com/gateway.do")
STRIPE_API_URL = env.str("STRIPE_API_URL", default="https://api.stripe.com")

# The default upstream of tenants that are opened: any OpenAI-compatible endpoint. Empty: the built-in model.
OPENAI_BASE_URL = env.str("OPENAI_BASE_URL", default="")
OPENAI_API_KEY = env.str("OPENAI_API_KEY", default="")
OPENAI_MODEL = env.str("OPENAI_MODEL", default="")

# Yuan that one of a tenant's staff may give to users by hand in a day; 0: no limit.
STAFF_CREDIT_YUAN_PER_DAY = env.int("STAFF_CREDIT_YUAN_PER_DAY", default=10_000)

# Chat. Seconds.
UPSTREAM_CONNECT_TIMEOUT = env.float("UPSTREAM_CONNECT_TIMEOUT", default=10.0)
UPSTREAM_FIRST_TOKEN_TIMEOUT = env.float("UPSTREAM_FIRST_TOKEN_TIMEOUT", default=90.0)
UPSTREAM_IDLE_TIMEOUT = env.float("UPSTREAM_IDLE_TIMEOUT", default=60.0)
UPSTREAM_TOTAL_TIMEOUT = env.float("UPSTREAM_TOTAL_TIMEOUT", default=600.0)
# Networks beside the public ones that URLs set by tenants may lead to. Checked here: a typing error stops the start.
UPSTREAM_PRIVATE_NETWORKS = [str(ip_network(network)) for network in env.list("UPSTREAM_PRIVATE_NETWORKS", default=[])]
# How long a stopping web process waits for the answers that it is generating.
DRAIN_SECONDS = env.float("DRAIN_SECONDS", default=30.0)
# Answers that one web process generates, or follows for others, at once; bytes that one may take; and answers of one
# user at once, in all processes (0: as many as the money allows).
MAX_ANSWERS = env.int("MAX_ANSWERS", default=2000)
MAX_ANSWER_BYTES = env.int("MAX_ANSWER_BYTES", default=16 * 1024 * 1024)
MAX_ANSWERS_PER_USER = env.int("MAX_ANSWERS_PER_USER", default=0)
# The OpenAI-compatible API: calls of a key in a minute (0: no limit), keys of a user, bytes of a request, and for how
# many seconds an answer that its program left is kept, should the program ask again.
API_CALLS_PER_MINUTE = env.int("API_CALLS_PER_MINUTE", default=600)
API_KEYS_PER_USER = env.int("API_KEYS_PER_USER", default=20)
API_BODY_BYTES = env.int("API_BODY_BYTES", default=8 * 1024 * 1024)
API_REPLY_SECONDS = env.int("API_REPLY_SECONDS", default=300)
# Origins of pages that may open WebSockets, beside each tenant's own and mini-programs; "*" for any.
WEBSOCKET_ORIGINS: list[str] = env.list("WEBSOCKET_ORIGINS", default=[])
# How long a hold lives without a sign of life; then it is charged at its checkpoint, or freed.
HOLD_SECONDS = env.int("HOLD_SECONDS", default=120)
# What users attach to questions: files of a message, uploads of a user in a minute and in a day, and bytes of a user's
# that are kept; guests have a tenth of the last two.
ATTACHMENTS_PER_MESSAGE = env.int("ATTACHMENTS_PER_MESSAGE", default=4)
ATTACHMENTS_PER_MINUTE = env.int("ATTACHMENTS_PER_MINUTE", default=20)
ATTACHMENTS_PER_DAY = env.int("ATTACHMENTS_PER_DAY", default=100)
ATTACHMENT_BYTES_PER_USER = env.int("ATTACHMENT_BYTES_PER_USER", default=50 * 1024 * 1024)
# Avatars that a user may upload in a day.
AVATARS_PER_DAY = env.int("AVATARS_PER_DAY", default=20)
# Days after which what was said in a deleted conversation is erased.
DELETED_CONVERSATION_DAYS = env.int("DELETED_CONVERSATION_DAYS", default=30)

# Who is told by mail when the ledger does not add up, and how mail is sent: by default it is printed.
ALERT_EMAILS: list[str] = env.list("ALERT_EMAILS", default=[])
_MAIL = env.email_url("EMAIL_URL", default="consolemail://")
EMAIL_BACKEND, EMAIL_HOST, EMAIL_PORT = _MAIL["EMAIL_BACKEND"], _MAIL["EMAIL_HOST"], _MAIL["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL["EMAIL_HOST_USER"], _MAIL["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL.get("EMAIL_USE_TLS", False), _MAIL.get("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="banyan@localhost")

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOG_JSON = env.bool("LOG_JSON", default=not DEBUG)
LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_config(level=LOG_LEVEL, json=LOG_JSON)
configure_structlog()
