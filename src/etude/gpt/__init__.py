"""The model as data: configuration, parameter names and shapes, and the model directory."""
