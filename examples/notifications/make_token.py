"""Makes a token for a user: ``python examples/notifications/make_token.py ada``.

A program would do this where it knows who the user is, when the user has logged in. FASTCAST_JWT_SECRET is
the secret, the same as the server's.
"""

from __future__ import annotations

import os
import sys
import time

import jwt

SECRET = os.environ.get("FASTCAST_JWT_SECRET", "only for trying this example out")
HOUR = 3600


def make_token(user: str, seconds: int = HOUR) -> str:
    """For a user's own channel, and the one for all."""
    claims = {"sub": user, "channels": [f"users.{user}", "news"], "exp": int(time.time()) + seconds}
    return jwt.encode(claims, SECRET, "HS256")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_token.py USER")
    print(make_token(sys.argv[1]))
