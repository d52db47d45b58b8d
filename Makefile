# Every target below with a comment behind it is listed by `make help`.

# The Python that makes .venv: the first of these names that is 3.11 or newer.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif
INSTALL = @test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found: make PYTHON=/path/to/python3.11 $@" >&2; exit 1; }; \
	$(PYTHON) -I saas/local/install.py
BIN = .venv/bin
# Names tests to run, or options for pytest: make pytest ARGS="billing -k hold"
ARGS ?=
TENANT ?=
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help install install-test run client client-if-possible client-test miniprogram e2e test checks lint types format pytest openapi bench chaos messages lock clean
.NOTPARALLEL:

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-18s %s\n' "$$name" "$$what"; done

install: ## make .venv with what runs
	$(INSTALL) run

install-test: ## make .venv with what runs and tests
	$(INSTALL) test

run: install client-if-possible ## install, start everything on this machine with demo data, until Ctrl-C
	@exec $(BIN)/python manage.py up

client: ## build the client's page, where its sources changed (Node of the machine, or of a wheel)
	@$(PYTHON) -I saas/local/client.py

client-test: ## types, lint and tests of the client, where there is Node
	@$(PYTHON) -I saas/local/client.py test

miniprogram: install ## write a tenant's WeChat mini-program: make miniprogram TENANT=aurora [ARGS="--server https://…"]
	@test -n "$(TENANT)" || { echo "Name the tenant: make miniprogram TENANT=slug" >&2; exit 1; }
	@$(BIN)/python manage.py mini_program --tenant "$(TENANT)" $(ARGS)

# ARGS="-k offline" chooses. Debian: apt install chromium.
e2e: install-test client ## the client's page in this machine's Chromium, against the real server
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-e2e.txt || \
		echo "playwright could not be installed: what needs it is skipped" >&2
	@exec $(BIN)/python -m saas.local.testing -- $(BIN)/pytest tests/browser -o python_files="e2e_*.py" $(ARGS)

client-if-possible:
	@$(PYTHON) -I saas/local/client.py --lenient

test: install-test ## all checks, then all tests, on PostgreSQL and Valkey of their own
	@$(MAKE) --no-print-directory client-test
	@exec $(BIN)/python -m saas.local.testing -- $(MAKE) --no-print-directory checks pytest

checks: lint types ## lint, types, messages, migrations and settings
	@$(BIN)/python -m saas.local.translations
	@$(BIN)/python manage.py makemigrations --check --dry-run
	@$(BIN)/python manage.py check

lint: install-test ## style, format and import rules
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/lint-imports --no-cache --no-logo

types: install-test ## mypy
	@$(BIN)/mypy

format: install-test ## put the source into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

pytest: install-test ## the tests alone; ARGS="chat -k resume" chooses
	@if [ -n "$$DATABASE_URL" ]; then exec $(BIN)/pytest -n 2 --dist loadgroup $(ARGS); \
	else exec $(BIN)/python -m saas.local.testing -- $(BIN)/pytest -n 2 --dist loadgroup $(ARGS); fi

messages: install-test ## collect new texts into locale/, to be translated there by hand
	@$(BIN)/python -m saas.local.messages

openapi: install-test ## write docs/openapi.json anew from the source
	@$(BIN)/python manage.py openapi > docs/openapi.json

bench: install-test ## measure streams and chats beside nginx, LiteLLM and Portkey; writes docs/performance.md
	@exec $(BIN)/python -m bench $(ARGS)

chaos: install-test ## break the running product, several times each way, and count the money
	@exec $(BIN)/python -m tests.chaos $(ARGS)

lock: install-test ## pin the requirements anew from requirements/*.in
	$(COMPILE) requirements/run.in -o requirements.txt
	$(COMPILE) requirements/local.in -o requirements-local.txt
	$(COMPILE) requirements/dev.in -o requirements-dev.txt
	$(COMPILE) --no-deps requirements/model.in -o requirements-model.txt
	$(COMPILE) requirements/node.in -o requirements-node.txt
	$(COMPILE) requirements/e2e.in -o requirements-e2e.txt

clean: ## remove .venv, caches and compiled messages; data in var/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find locale -name '*.mo' -delete
