"""Images and containers without a container engine.

`dockerfile` and `build` read what a Dockerfile says, `store` keeps the image under the state root, and
`process` runs it: the image's own entry point, in a virtual environment with exactly the packages that the
image pins.
"""
