"""What is provisioned: one file a stack, one Stage that wires them, one file an environment.

The other packages of this repository are assets here (folders with a path), never imports.
"""
