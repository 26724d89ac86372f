"""The inference image and the event functions around it."""
