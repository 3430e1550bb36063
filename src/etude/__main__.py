"""`python -m etude` is `etude`."""

from .cli import main

if __name__ == "__main__":
    main()
