"""What a trained model is worth: measured on held-out patients, the way it will be served."""
