"""How good a trained model is, on patients that it has not seen."""
