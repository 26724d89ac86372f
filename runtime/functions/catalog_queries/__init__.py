"""Where the catalog's rows are, and how functions ask Athena about them. Carried in the package of each that
does.
"""
