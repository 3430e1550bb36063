"""Programs that are made to be packed: whole by themselves, small, and read once before they are minified."""
