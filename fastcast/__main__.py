"""``python -m fastcast`` is the ``fastcast`` command."""

from fastcast.cli import main

if __name__ == "__main__":
    main()
