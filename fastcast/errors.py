"""The exceptions that fastcast raises on purpose.

Every message is one line, written for the person who runs the server: it names what is wrong, and where that
was written.
"""


class FastcastError(Exception):
    """Base of all of fastcast's own exceptions."""


class ConfigError(FastcastError):
    """An option's value, or the configuration file, cannot be used."""


class StartError(FastcastError):
    """The server cannot start although its configuration is valid: for example, the port is taken."""


class OverloadError(FastcastError):
    """A message was not published: too much is under way, and the shards must catch up. Try again later."""


class BusError(FastcastError):
    """A message was not published: the bus between the servers can't be reached."""


class PublishError(FastcastError):
    """A message was not published from outside: the admin port refused it, or could not be reached."""
