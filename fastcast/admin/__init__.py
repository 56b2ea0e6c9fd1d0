"""The admin port: publishing and looking at the server over HTTP, for programs that know the token."""

from __future__ import annotations

from fastcast.admin.port import Admin

__all__ = ["Admin"]
