"""nchan: writes nginx's configuration into a directory of its own and becomes nginx.

The process that was started is the server itself, so that its id is the one to measure and to end. A child
waits until nginx accepts, prints the ready line and is gone.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from pathlib import Path

HOST = "127.0.0.1"
READY_SECONDS = 10.0


def free_port() -> int:
    """Return a port that nobody listens on; nginx itself can't pick one."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def configure(directory: Path, module: Path, port: int) -> Path:
    """Write the configuration and return its path."""
    text = Path(__file__).with_name("nchan.conf").read_text(encoding="utf-8")
    for name, value in {"PORT": str(port), "MODULE": str(module), "DIRECTORY": str(directory)}.items():
        text = text.replace(name, value)
    path = directory / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


def announce_when_ready(port: int) -> None:
    """Print the ready line once nginx accepts a connection."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            print("listening", HOST, port, flush=True)
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nginx", default="/usr/sbin/nginx")
    parser.add_argument("--module", type=Path, default=Path("/usr/lib/nginx/modules/ngx_nchan_module.so"))
    options = parser.parse_args()

    directory = Path(tempfile.mkdtemp(prefix="nchan-"))
    port = free_port()
    configuration = configure(directory, options.module, port)
    # Two forks, so that nginx has no child of ours to wait for.
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            announce_when_ready(port)
        os._exit(0)
    os.waitpid(middle, 0)
    os.execv(options.nginx, [options.nginx, "-p", str(directory), "-c", str(configuration)])


if __name__ == "__main__":
    main()
