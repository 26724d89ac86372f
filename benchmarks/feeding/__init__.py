"""How a training loop gets its volumes: the programs that feed one, the volumes, and what they used."""
