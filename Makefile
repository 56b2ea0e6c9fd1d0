# Two commands for a fresh machine with Python 3.11, gcc, make, apt and pip:
#
#   make serve    installs fastcast into .venv and starts the server (ARGS="--port 9000" for options)
#   make test     installs what the tests need, a browser included, into .venv-test, and runs all of them
#
# The server comes with all that its options need, the admin port and tokens included. And `make docs` writes the
# documentation to build/docs.

PYTHON ?= $(or $(shell command -v python3.11),python3)
ARGS ?=
SOURCES := setup.py pyproject.toml $(shell find fastcast -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' -o -name '*.html')

serve: .venv/installed
	exec .venv/bin/fastcast serve $(ARGS)

# Everything with the backend that the kernel allows, and what talks to a server with the other one, too; but for the bus and
# the doctor, who know nothing of backends.
test: .venv-test/installed tools
	.venv-test/bin/python -m pytest $(ARGS)
	FASTCAST_IO=epoll .venv-test/bin/python -m pytest tests/conformance tests/integration $(NOT_TWICE)

NOT_TWICE := $(foreach name,bus doctor everywhere history_bus,--ignore-glob='*/test_$(name)*')

docs: .venv-test/installed
	.venv-test/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs $(ARGS)
	@echo file://$(CURDIR)/build/docs/index.html

# The comparisons that stay within one process; benchmarks/macro has its own command.
benchmark: .venv-test/installed
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	.venv-test/bin/python -m pytest benchmarks/micro --benchmark-only --benchmark-sort=name \
		--benchmark-columns=min,median,iqr,rounds $(ARGS)

.venv/installed: $(SOURCES) | system
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check '.[admin,jwt]'
	touch $@

.venv-test/installed: $(SOURCES) | system
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# Debian keeps venv and Python.h in packages of their own.
system:
	@$(PYTHON) -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
		|| { $(APT_UPDATE) && $(APT_INSTALL) python3-venv python3-dev; }

# Pages are tested in a real browser, a full table of connections with a real firewall, the bus with real brokers, and
# several servers behind real load balancers.
tools: build/nginx/usr/sbin/nginx
	@missing=; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	test -x /usr/sbin/nft || missing="$$missing nftables"; \
	command -v ip >/dev/null || test -x /usr/sbin/ip || missing="$$missing iproute2"; \
	command -v haproxy >/dev/null || missing="$$missing haproxy"; \
	test -z "$$missing" || { $(APT_UPDATE) && $(APT_INSTALL) $$missing; }

# Only unpacked: once installed it would start to serve port 80.
build/nginx/usr/sbin/nginx:
	mkdir -p build/nginx
	cd build/nginx && { apt-get -qq download nginx || { $(APT_UPDATE) && apt-get -qq download nginx; } }
	cd build/nginx && dpkg-deb --extract nginx_*.deb .

ROOT := $(if $(filter-out 0,$(shell id -u)),sudo)
APT_UPDATE := $(ROOT) apt-get -qq update
APT_INSTALL := $(ROOT) apt-get -qq install --yes --no-install-recommends

clean:
	rm -rf .venv .venv-test build dist fastcast/*.so tests/c/build tests/fuzz/build

.PHONY: serve test docs benchmark system tools clean
