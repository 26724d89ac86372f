"""Real images without Docker: buildah behind docker's command line, and a stand-in for the base image.

`python -m local.containers.buildah build ...` builds an unchanged Dockerfile in chroots. The base image is
public but large and not always within reach, so its name is given to a stand-in (`stand_in`) that is made
of the machine's own Debian mirror and pip configuration. An image of that name that is there already is
used as it is.
"""
