"""Music without a model: theory, charts, arranging and sound; useful by itself."""
