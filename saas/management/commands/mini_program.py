"""`manage.py mini_program --tenant SLUG`: write a tenant's WeChat mini-program, for WeChat's developer tool to open."""

import json
import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from saas.local import client
from tenants import scope
from tenants.models import Domain, MiniProgram, Tenant


class Command(BaseCommand):
    """Build the client for WeChat once, and put a tenant's app id and server beside it."""

    help = "Write the folder of a tenant's WeChat mini-program, with its app id and server address in ext.json."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument("--server", default="", help="https:// and the host; the tenant's first domain by default")
        parser.add_argument("--app-id", default="", help="the mini-program's; the tenant's own row by default")
        parser.add_argument("--built", type=Path, default=None, help="a folder that was built already")
        parser.add_argument("--to", type=Path, default=None, help="client/dist/mini-program/SLUG by default")

    def handle(self, *args: Any, tenant: str, **options: Any) -> str:
        """Return where the folder is, which Django prints to standard output."""
        server, app_id = _facts(tenant, options["server"], options["app_id"])
        built = options["built"] or self._build(server)
        folder: Path = options["to"] or client.CLIENT / "dist" / "mini-program" / tenant
        write(built=built, folder=folder, server=server, app_id=app_id, name=tenant)
        return str(folder)

    def _build(self, server: str) -> Path:
        try:
            client.build("build:mp-weixin", BANYAN_SERVER=server)
        except client.BuildError as problem:
            raise CommandError(f"The mini-program could not be built: {problem}") from problem
        return client.CLIENT / "dist" / "build" / "mp-weixin"


def _facts(slug: str, server: str, app_id: str) -> tuple[str, str]:
    """Return server and app id of a tenant, as given or as its rows say; CommandError where neither does."""
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"there is no tenant “{slug}”")
    with scope.tenant(tenant.pk):
        domain = Domain.objects.order_by("pk").first()
        program = MiniProgram.objects.order_by("pk").first()
    server = server or (f"https://{domain.host}" if domain else "")
    app_id = app_id or (program.app_id if program else "")
    if not server.startswith(("https://", "http://")):
        raise CommandError(f"tenant “{slug}” has no domain: name one with --server https://…")
    if not app_id:
        raise CommandError(f"tenant “{slug}” has no mini-program: enter its app id in the admin, or give --app-id")
    return server.rstrip("/"), app_id


def write(*, built: Path, folder: Path, server: str, app_id: str, name: str) -> None:
    """Copy what was built, and write the two files that make it a tenant's: all else is asked for at run time."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(built, folder)
    settings = folder / "project.config.json"
    project = json.loads(settings.read_text("utf-8")) if settings.exists() else {}
    _put(settings, {**project, "appid": app_id, "projectname": name})
    _put(folder / "ext.json", {"extEnable": True, "extAppid": app_id, "ext": {"server": server, "appid": app_id}})


def _put(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")
