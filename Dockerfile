# One image for web, worker, beat and migrate: docker-compose.yml chooses the command.
# tests/test_deploy.py holds this file, docker-compose.yml, deploy/ and the settings against each other.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1


# The client's page: no install script of a package is run.
FROM node:20-bookworm-slim AS client
WORKDIR /client
COPY client/package.json client/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY client ./
RUN npm run build:h5


FROM base AS build
WORKDIR /app
# No pip in the environment that goes on: the one of the build's Python installs into it.
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt ./
RUN pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt
ENV PATH=/opt/venv/bin:$PATH

COPY manage.py ./
COPY saas saas
COPY tenants tenants
COPY billing billing
COPY chat chat
COPY lifecycle lifecycle
COPY templates templates
COPY locale locale
COPY --from=client /client/dist/build/h5 client/dist/build/h5
# Both need no database and no secret. Bytecode is written here because the file system is read-only later.
RUN pybabel compile --domain django --directory locale \
    && STATIC_ROOT=/app/static python manage.py collectstatic --noinput \
    && python -m whitenoise.compress --quiet /app/static \
    && python -m compileall -q saas tenants billing chat lifecycle


FROM base AS final
RUN pip uninstall --yes pip setuptools wheel \
    && groupadd --gid 10001 banyan \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/banyan --create-home --shell /usr/sbin/nologin banyan \
    && install -d -o 10001 -g 10001 -m 700 /var/lib/banyan-exports
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# BANYAN_VAR is the only place of its own that a process writes to (beat's schedule, the web's spool): a volume in docker-compose.yml.
ENV PATH=/opt/venv/bin:$PATH \
    DJANGO_SETTINGS_MODULE=saas.settings \
    BANYAN_VAR=/var/lib/banyan \
    STATIC_ROOT=/app/static
WORKDIR /app
USER 10001:10001
EXPOSE 8000
# All that a deployment may want to change stands in docker-compose.yml; this is for `docker run` alone.
CMD ["uvicorn", "saas.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
