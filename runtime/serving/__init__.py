"""SageMaker's container contract: HTTP server, the worker that owns the model, their start and end."""
