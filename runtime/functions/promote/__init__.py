"""Takes an approved model package of the environment before this one, as a candidate."""
