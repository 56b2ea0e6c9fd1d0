"""What a machine can hold, and what to change: ``fastcast doctor``.

``facts`` reads the machine and ``probe`` tries what can't be read; ``needs`` compares that, as pure
arithmetic, with what is asked for; ``advice`` has the words and lines, which the server uses at run time,
too; ``command`` and ``write`` show the outcome.
"""
