"""Tells EventBridge what came of every asynchronous inference."""
