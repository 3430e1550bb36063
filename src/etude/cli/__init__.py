"""The command `etude`: one thin file a verb over what `import etude` offers."""

from .app import main

__all__ = ["main"]
