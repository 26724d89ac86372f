"""The SQL catalog's tables, and how an image set's metadata become their rows. Standard library only, so that
a Lambda function can bundle this folder as it is.
"""
