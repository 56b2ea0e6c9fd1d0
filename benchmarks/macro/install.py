"""Install the servers of the benchmark below build/, and write down which of them are there.

    python benchmarks/macro/install.py [--only a,b] [--upgrade] [--apt]

May be run again at any time. A server that can't be installed is no failure of the run: build/peers.json says
why, and so does the report. Debian packages are installed only with --apt, which needs root; everything else
stays below build/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import catalogue
from catalogue import BUILD, INSTALLED, MACRO, Peer

REPORT_VENV: Final = BUILD / "venv-report"
REPORT_PACKAGES: Final = ("jinja2", "matplotlib")
STEP_SECONDS: Final = 900.0
UNTRIED: Final = {"installed": False, "version": None, "reason": "install.py was not asked to install it"}


class InstallError(Exception):
    """A step failed; the message is the reason in one line."""


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run one step and return its standard output.

    Raises :exc:`InstallError` with the last line that the step said.
    """
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise InstallError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise InstallError(f"{command[0]} took longer than {STEP_SECONDS:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = said[-1].strip() if said else f"status {done.returncode}"
        raise InstallError(f"{Path(command[0]).name}: {reason}")
    return done.stdout


def dpkg_version(package: str) -> str | None:
    """Return the version of an installed Debian package, None if it is not installed."""
    try:
        status, _, version = run(
            ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package]
        ).partition(" ")
    except InstallError:
        return None
    return version if status == "installed" else None


def install_apt(packages: Sequence[str], allowed: bool) -> None:
    missing = [package for package in packages if dpkg_version(package) is None]
    if not missing:
        return
    if not allowed:
        raise InstallError(f"needs the Debian packages {' '.join(missing)} (install them, or use --apt)")
    run(
        ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing],
        {"DEBIAN_FRONTEND": "noninteractive"},
    )


def install_pip(venv: Path, requirements: Sequence[str], upgrade: bool) -> None:
    python = venv / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(venv)])
    run([str(python), "-m", "pip", "install", "--quiet", *(["--upgrade"] if upgrade else []), *requirements])


def install_npm(packages: Sequence[str], upgrade: bool) -> None:
    prefix = BUILD / "node"
    if upgrade or not all((prefix / "node_modules" / package).is_dir() for package in packages):
        prefix.mkdir(parents=True, exist_ok=True)
        names = [f"{package}@latest" if upgrade else package for package in packages]
        run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(prefix), *names])


def version_of(peer: Peer) -> str | None:
    """Return the version that is installed, None for a peer that is part of this repository."""
    for source, name in peer.version.items():
        if source == "pip":
            show = f"import importlib.metadata as m; print(m.version({name!r}))"
            return run([str(peer.venv / "bin" / "python"), "-c", show]).strip()
        if source == "npm":
            manifest = BUILD / "node" / "node_modules" / name / "package.json"
            return str(json.loads(manifest.read_text(encoding="utf-8"))["version"])
        if source == "dpkg":
            return dpkg_version(name)
        if source == "file":
            return next(BUILD.glob(name)).name.rpartition("-")[2]
        raise ValueError(f"{peer.name}: no way to get a version from {source}")
    return None


def install(peer: Peer, *, upgrade: bool, apt: bool) -> str | None:
    """Install one peer and return its version.

    Raises :exc:`InstallError` with the reason why that is not possible.
    """
    if peer.absent:
        raise InstallError(peer.absent)
    install_apt(peer.apt, apt)
    if peer.make:
        run(["make", "--silent", "-C", str(MACRO), peer.make])
    if peer.pip:
        install_pip(peer.venv, peer.pip, upgrade)
    if peer.npm:
        install_npm(peer.npm, upgrade)
    for command in peer.build:
        run(command, peer.environment, BUILD)
    return version_of(peer)


def install_all(peers: Sequence[Peer], *, upgrade: bool = False, apt: bool = False) -> dict[str, Any]:
    """Install peers, say how it went, and return all that is known, older outcomes included."""
    BUILD.mkdir(exist_ok=True)
    known: dict[str, Any] = {}
    if INSTALLED.exists():
        known = json.loads(INSTALLED.read_text(encoding="utf-8"))
    for peer in peers:
        try:
            version = install(peer, upgrade=upgrade, apt=apt)
            known[peer.name] = {"installed": True, "version": version, "reason": None}
            said = version or "installed"
        except InstallError as error:
            known[peer.name] = {"installed": False, "version": None, "reason": str(error)}
            said = f"not installed: {error}"
        INSTALLED.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        print(f"{peer.name:15} {said}", file=sys.stderr, flush=True)
    return known


def install_load() -> None:
    """Build the load client. Raises :exc:`InstallError`."""
    run(["make", "--silent", "-C", str(MACRO), "build/load"])


def install_report() -> None:
    """Install what report.py needs. Raises :exc:`InstallError`."""
    install_pip(REPORT_VENV, REPORT_PACKAGES, upgrade=False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the servers that the macro benchmark compares.")
    parser.add_argument("--only", metavar="a,b", help="servers to install (default: all of peers.toml)")
    parser.add_argument("--upgrade", action="store_true", help="upgrade what comes from PyPI and npm")
    parser.add_argument("--apt", action="store_true", help="install missing Debian packages (needs root)")
    options = parser.parse_args()

    peers = catalogue.select(catalogue.load(), options.only)
    BUILD.mkdir(exist_ok=True)
    try:
        install_load()
        install_report()
    except InstallError as error:
        print(f"install.py: error: {error}", file=sys.stderr)
        return 1
    install_all(peers, upgrade=options.upgrade, apt=options.apt)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
