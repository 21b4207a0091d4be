"""``python -m hessiod`` is the command ``hessiod``."""

from hessiod.cli.app import main

if __name__ == "__main__":
    main()
