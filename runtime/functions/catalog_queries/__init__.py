"""How the functions that look after the catalog ask Athena. Carried in the package of each that does."""
