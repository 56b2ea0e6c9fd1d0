"""Notifications: each user hears what is for them, on the channels that a signed token names.

Run it with ``python examples/notifications/app.py``, make a token with make_token.py, and open
http://127.0.0.1:8000/#TOKEN. Then notify Ada, or everybody:

    export FASTCAST_ADMIN_TOKEN="only for trying it out"
    fastcast publish http://127.0.0.1:8001 users.ada "Your parcel is here"
    fastcast publish http://127.0.0.1:8001 news "We close at noon"
"""

from __future__ import annotations

import os
from pathlib import Path

import fastcast

server = fastcast.Server(
    fastcast.Config.load({}, os.environ),
    html=Path(__file__).with_name("page.html").read_bytes(),
    relay="off",  # clients have nothing to say
    # Whoever has no valid token is refused; the claim "channels" says where the others belong.
    jwt_secret=os.environ.get("FASTCAST_JWT_SECRET", "only for trying this example out"),
    # For `fastcast publish` and fastcast.Publisher, on this machine only.
    admin_port=int(os.environ.get("FASTCAST_ADMIN_PORT", "8001")),
    admin_token=os.environ.get("FASTCAST_ADMIN_TOKEN", "only for trying it out"),
)

if __name__ == "__main__":
    server.run(ready=lambda: print(server.describe(), flush=True))
